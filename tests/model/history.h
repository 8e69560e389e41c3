/* A history: operations made up from a seed, run on a store and on the model side by side. */
#pragma once
#include "tests/model/generate.h"
#include "tests/model/run.h"

struct step {
    struct op op;
    size_t begin, end;         /* events of the disk before and after */
    uint64_t hash, hash_named; /* the model's content afterwards, with and without orphans */
    bool durable;              /* its success promises that all before is durable */
    int effect;                /* EFFECT_*, or from 0 on the part of it that took effect */
};

#define EFFECT_NONE (-2)
#define EFFECT_WHOLE (-1)

struct history {
    uint64_t seed;
    struct rng rng;
    struct generate_style style;
    struct volume v;
    struct model *m;
    struct step *steps;
    size_t n, cap;
    uint64_t hash0;
    uint8_t *buf, *want;
};

/* Says on stderr what went wrong, with the seed. */
__attribute__((format(printf, 2, 3))) void history_complain(const struct history *h, const char *fmt, ...);

void history_begin(struct history *h, uint64_t seed);
void history_end(struct history *h);

/* Makes up and runs one more operation; compares its answer with the model's. False: it was wrong, and was told. */
bool history_step(struct history *h);
/* The same in three parts, for those who expect errors: make it up, run it, hold it against the model. */
struct op *history_make(struct history *h);
bool history_compare(struct history *h, struct op *op);
void history_keep(struct history *h, const struct op *op);
/* The operation just run failed for reasons the model does not know. Finds out by what the store holds what became of it,
 * brings the model there, and keeps it. False: it left something that is neither the old nor the new state. */
bool history_resolve(struct history *h, struct op *op);

/* Compares everything that the store holds with the model. */
bool history_compare_all(struct history *h);
/* The engine's own check of the open store; without a history it only says whether all is well. */
bool history_check(struct history *h, struct dfs_store *st);

/* The model as it was after the first `n` operations. */
struct model *history_replay(const struct history *h, size_t n);

/* Is this content that of the volume after i operations, lo <= i <= hi, or in the middle of one? *found: which. */
bool history_find(const struct history *h, const struct dump *d, bool orphans, size_t lo, size_t hi, size_t *found,
                  struct model **exact);
