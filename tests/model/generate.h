/* Makes up operations: likely ones on what is there, and now and then one that must be refused. */
#pragma once
#include "tests/model/model.h"

/* What a history is like. */
struct generate_style {
    unsigned names;      /* how many different names */
    bool big;            /* writes of up to 300 KiB, else of up to 20 KiB */
    bool far;            /* offsets far out, too */
    unsigned sync_often; /* of 100 operations, so many are fsync, syncfs or checkpoint */
    unsigned reopen_often;
};

void generate_style(struct rng *rng, struct generate_style *s);
void generate_op(struct rng *rng, const struct generate_style *s, const struct model *m, int64_t now, struct op *op);
