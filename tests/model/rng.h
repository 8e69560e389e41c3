/* Seeded random numbers for tests: the same seed gives the same test everywhere. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s;
};

static inline uint64_t rng_next(struct rng *r) {
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* 0 .. n-1 */
static inline uint64_t rng_below(struct rng *r, uint64_t n) {
    return rng_next(r) % n;
}
static inline uint64_t rng_range(struct rng *r, uint64_t from, uint64_t to) {
    return from + rng_below(r, to - from + 1);
}
/* true once in n */
static inline bool rng_one_in(struct rng *r, uint64_t n) {
    return rng_below(r, n) == 0;
}
