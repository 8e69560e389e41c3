/* Runs operations on a store on a test disk, and writes down what a volume contains in a form that can be compared. */
#pragma once
#include "tests/model/io_test.h"
#include "tests/model/model.h"

struct volume {
    struct test_disk *disk;
    struct dfs_volume_params params;
    struct dfs_store *store;
    bool keep_orphans;
};

#define ROOT_TIME 1000000

/* A formatted volume on a new disk, open. Parameters are drawn from the generator. */
void volume_new(struct volume *v, struct rng *rng);
/* Opens what is on the disk; what dfs_store_open_io() gave. */
int volume_open(struct volume *v, struct dfs_err *err);
/* The store without a close, the disk as well. */
void volume_drop(struct volume *v);

/* The clock of all stores of this process. */
void run_set_clock(int64_t now);

/* Executes op; its result goes to op->result, a new inode to op->new_ino, read bytes to buf (OP_DATA_MAX). `why` says
 * what is wrong when the answer is not even sound by itself (cookies going backwards and the like), else NULL. */
void run_op(struct volume *v, struct op *op, uint8_t *buf, const char **why);

/* ---- contents ---- */

enum dump_part { DUMP_ATTR, DUMP_XATTRS, DUMP_ENTRIES, DUMP_DATA, DUMP_PARTS };

struct dump {
    uint64_t n;                   /* inodes 0..n-1 */
    char *(*part)[DUMP_PARTS];    /* of each, lines of text; NULL: nothing */
};

void dump_store(struct dfs_store *st, uint64_t max_ino, struct dump *d);
void dump_model(const struct model *m, bool orphans, struct dump *d);
void dump_free(struct dump *d);
uint64_t dump_hash(const struct dump *d);
/* The first difference in words, false if there is none. */
bool dump_differs(const struct dump *want, const struct dump *got, char *text, size_t size);
/* As dump_differs(), but what could not be read (errors) is excused. */
bool dump_wrong(const struct dump *want, const struct dump *got, char *text, size_t size);
