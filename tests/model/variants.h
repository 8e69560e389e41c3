/* The kinds of model test. Each runs one history of the given seed; false: something was wrong, and stderr says what. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Every answer and the content at the end agree with the model; then a crash at every flush and at random moments. */
bool variant_crash(uint64_t seed);
/* Each call to the disk fails in turn. */
bool variant_fault(uint64_t seed);
/* The host has little space. */
bool variant_nospace(uint64_t seed);
/* Bits of the image flip: 20 damages per seed. */
bool variant_flip(uint64_t seed);

/* What was done, for the last line of output. */
struct variant_counts {
    uint64_t operations, crashes, faults, damages;
};
extern struct variant_counts variant_counts;
