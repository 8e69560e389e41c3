#include "tests/model/op.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

const char *op_name(enum op_kind kind) {
    static const char *const names[OP_KINDS] = {
        [OP_CREATE] = "create",     [OP_TMPFILE] = "tmpfile",     [OP_LINK] = "link",
        [OP_UNLINK] = "unlink",     [OP_RMDIR] = "rmdir",         [OP_RENAME] = "rename",
        [OP_LOOKUP] = "lookup",     [OP_SETATTR] = "setattr",     [OP_WRITE] = "write",
        [OP_READ] = "read",         [OP_FALLOCATE] = "fallocate", [OP_SEEK] = "seek",
        [OP_COPY] = "copy_range",   [OP_SETXATTR] = "setxattr",   [OP_GETXATTR] = "getxattr",
        [OP_LISTXATTR] = "listxattr", [OP_RMXATTR] = "removexattr", [OP_READDIR] = "readdir",
        [OP_READLINK] = "readlink", [OP_RELEASE] = "release",     [OP_FSYNC] = "fsync",
        [OP_SYNCFS] = "syncfs",     [OP_CHECKPOINT] = "checkpoint", [OP_REOPEN] = "reopen",
        [OP_KILL] = "kill",
    };
    return names[kind];
}

void op_print(const struct op *op, char *buf, size_t size) {
    snprintf(buf, size,
             "%s ino=%" PRIu64 " dir=%" PRIu64 " name=%.12s(%zu) dir2=%" PRIu64 " name2=%.12s(%zu) ino2=%" PRIu64
             " off=%" PRIu64 " off2=%" PRIu64 " len=%" PRIu64 " flags=%#x mode=%#o valid=%#x size=%" PRIu64
             " now=%" PRId64 " -> %" PRId64 " new=%" PRIu64,
             op_name(op->kind), op->ino, op->dir, op->name, op->name_len, op->dir2, op->name2, op->name2_len, op->ino2,
             op->off, op->off2, op->len, op->flags, op->create.mode, op->set.valid, op->set.size, op->now, op->result,
             op->new_ino);
}

void op_data(const struct op *op, uint8_t *buf) {
    struct rng rng = {op->data_seed};
    const size_t len = op->len;
    size_t i = 0;
    switch (op->data_kind % 4) {
    case 0: /* incompressible */
        for (; i < len; i++)
            buf[i] = (uint8_t)rng_next(&rng);
        return;
    case 1: /* text-like: compresses about threefold */
        for (uint64_t word = 0; i < len; i++) {
            if (i % 8 == 0)
                word = rng_below(&rng, 64) * 0x9e3779b97f4a7c15u;
            buf[i] = (uint8_t)('a' + (word >> i % 8 * 8) % 26);
        }
        return;
    case 2: /* zeros but for a byte here and there, so that no two writes are equal, nor parts of one */
        memset(buf, 0, len);
        for (; i < len; i += 4096)
            buf[i] = (uint8_t)(op->data_seed | 1);
        return;
    default: /* stretches of a byte */
        while (i < len) {
            const size_t run = (size_t)rng_range(&rng, 1, 5000), n = DFS_MIN(run, len - i);
            memset(buf + i, (int)rng_below(&rng, 256), n);
            i += n;
        }
    }
}
