#include "tests/model/io_test.h"

#include <assert.h>
#include <pthread.h>

#include "common/util.h"
#include "tests/model/rng.h"

#define PAGE 4096u
#define SECTOR 512u

struct page {
    unsigned refs;
    uint8_t bytes[PAGE];
};

struct file {
    struct page **page; /* NULL: zeros */
    uint8_t *taken;     /* space on the host is taken, by a write or allocate */
    size_t n;
    uint64_t size;
};

enum event_kind { EV_WRITE, EV_PUNCH, EV_ALLOCATE, EV_SYNC };

struct event {
    enum event_kind kind;
    enum dfs_io_file file;
    bool lost; /* a failed sync dropped it */
    uint64_t off, len;
    uint8_t *data;
};

struct test_disk {
    pthread_mutex_t mu;
    struct rng rng;
    struct file file[DFS_IO_FILES];

    bool recording;
    bool any_lost;
    struct event *ev;
    size_t nev, cap_ev;
    struct file base[DFS_IO_FILES];    /* when recording began */
    struct file durable[DFS_IO_FILES]; /* rolled forward by test_disk_crash() */
    size_t rolled[DFS_IO_FILES];       /* events of the file before this one are in `durable` */
    size_t rolled_at;

    struct {
        enum test_call call;
        uint64_t n, after;
        int err;
        bool half, armed, paused;
    } fault;
    uint64_t calls[TEST_CALLS], faults;
    uint64_t capacity, used;
    bool can_allocate;
};

struct test_io {
    struct dfs_io base;
    struct test_disk *d;
};

struct dfs_io_batch {
    struct test_io *io;
    struct dfs_io_req **pending;
    size_t n, cap;
    int error;
};

/* Tests have the memory they need, or end. */
static void *must(void *p) {
    if (!p)
        abort();
    return p;
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static void page_drop(struct page *p) {
    if (p && --p->refs == 0)
        free(p);
}

static void file_reach(struct file *f, size_t n) {
    if (n <= f->n)
        return;
    n = DFS_MAX(n, f->n * 2);
    f->page = must(realloc(f->page, n * sizeof *f->page));
    f->taken = must(realloc(f->taken, n));
    memset(f->page + f->n, 0, (n - f->n) * sizeof *f->page);
    memset(f->taken + f->n, 0, n - f->n);
    f->n = n;
}

static void file_copy(struct file *to, const struct file *from) {
    *to = (struct file){.size = from->size};
    file_reach(to, from->n);
    if (from->n)
        memcpy(to->taken, from->taken, from->n);
    for (size_t i = 0; i < from->n; i++) {
        to->page[i] = from->page[i];
        if (to->page[i])
            to->page[i]->refs++;
    }
}

static void file_free(struct file *f) {
    for (size_t i = 0; i < f->n; i++)
        page_drop(f->page[i]);
    free(f->page);
    free(f->taken);
    *f = (struct file){0};
}

static void file_read(const struct file *f, uint8_t *buf, size_t len, uint64_t off) {
    while (len > 0) {
        const size_t i = (size_t)(off / PAGE), in = (size_t)(off % PAGE), n = DFS_MIN(len, PAGE - in);
        if (i < f->n && f->page[i])
            memcpy(buf, f->page[i]->bytes + in, n);
        else
            memset(buf, 0, n);
        buf += n;
        off += n;
        len -= n;
    }
}

static struct page *page_own(struct file *f, size_t i) {
    struct page *p = f->page[i];
    if (p && p->refs == 1)
        return p;
    struct page *q = must(calloc(1, sizeof *q));
    q->refs = 1;
    if (p) {
        memcpy(q->bytes, p->bytes, PAGE);
        p->refs--;
    }
    return f->page[i] = q;
}

static void file_write(struct file *f, const uint8_t *buf, size_t len, uint64_t off) {
    f->size = DFS_MAX(f->size, off + len);
    file_reach(f, (size_t)DFS_DIV_UP(off + len, PAGE));
    while (len > 0) {
        const size_t i = (size_t)(off / PAGE), in = (size_t)(off % PAGE), n = DFS_MIN(len, PAGE - in);
        memcpy(page_own(f, i)->bytes + in, buf, n);
        f->taken[i] = 1;
        buf += n;
        off += n;
        len -= n;
    }
}

/* Pages whose space is given back are counted. */
static uint64_t file_punch(struct file *f, uint64_t len, uint64_t off) {
    uint64_t given = 0;
    while (len > 0 && off / PAGE < f->n) {
        const size_t i = (size_t)(off / PAGE), in = (size_t)(off % PAGE);
        const size_t n = (size_t)DFS_MIN(len, (uint64_t)(PAGE - in));
        if (n == PAGE) {
            page_drop(f->page[i]);
            f->page[i] = NULL;
            given += f->taken[i];
            f->taken[i] = 0;
        } else if (f->page[i]) {
            memset(page_own(f, i)->bytes + in, 0, n);
        }
        off += n;
        len -= n;
    }
    return given;
}

/* How many pages of the range have no space yet. */
static uint64_t file_missing(const struct file *f, uint64_t len, uint64_t off) {
    uint64_t missing = 0;
    for (uint64_t i = off / PAGE; i < DFS_DIV_UP(off + len, PAGE); i++)
        missing += i >= f->n || !f->taken[i];
    return missing;
}

static void file_allocate(struct file *f, uint64_t len, uint64_t off) {
    file_reach(f, (size_t)DFS_DIV_UP(off + len, PAGE));
    memset(f->taken + off / PAGE, 1, (size_t)(DFS_DIV_UP(off + len, PAGE) - off / PAGE));
    f->size = DFS_MAX(f->size, off + len);
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static void note(struct test_disk *d, enum event_kind kind, enum dfs_io_file file, const void *data, uint64_t len,
                 uint64_t off) {
    if (!d->recording)
        return;
    if (d->nev == d->cap_ev) {
        d->cap_ev = d->cap_ev ? d->cap_ev * 2 : 256;
        d->ev = must(realloc(d->ev, d->cap_ev * sizeof *d->ev));
    }
    struct event *e = &d->ev[d->nev++];
    *e = (struct event){.kind = kind, .file = file, .off = off, .len = len};
    if (data) {
        e->data = must(malloc(len ? len : 1));
        memcpy(e->data, data, len);
    }
}

static void event_apply(struct file *f, const struct event *e) {
    switch (e->kind) {
    case EV_WRITE:
        file_write(f, e->data, e->len, e->off);
        break;
    case EV_PUNCH:
        file_punch(f, e->len, e->off);
        break;
    case EV_ALLOCATE:
        file_allocate(f, e->len, e->off);
        break;
    case EV_SYNC:
        break;
    }
}

/* Some sectors of a write arrive: a first part of it, or any. */
static void event_tear(struct file *f, const struct event *e, struct rng *rng) {
    if (e->kind != EV_WRITE)
        return;
    const bool prefix = rng_one_in(rng, 2);
    const uint64_t sectors = DFS_DIV_UP(e->off + e->len, SECTOR) - e->off / SECTOR;
    const uint64_t keep = rng_below(rng, sectors + 1);
    uint64_t at = e->off;
    for (uint64_t i = 0; i < sectors; i++) {
        const uint64_t end = DFS_MIN((e->off / SECTOR + i + 1) * SECTOR, e->off + e->len);
        if (prefix ? i < keep : rng_one_in(rng, 2))
            file_write(f, e->data + (at - e->off), end - at, at);
        at = end;
    }
}

/* Brings `durable` to what is certain at event `at`: all of a file up to its last sync. */
static void roll(struct test_disk *d, size_t at) {
    if (at < d->rolled_at || !d->durable[0].page) {
        for (int f = 0; f < DFS_IO_FILES; f++) {
            file_free(&d->durable[f]);
            file_copy(&d->durable[f], &d->base[f]);
            file_reach(&d->durable[f], 1);
            d->rolled[f] = 0;
        }
        d->rolled_at = 0;
    }
    size_t last[DFS_IO_FILES];
    memcpy(last, d->rolled, sizeof last);
    for (size_t i = d->rolled_at; i < at; i++)
        if (d->ev[i].kind == EV_SYNC)
            last[d->ev[i].file] = i + 1;
    for (unsigned f = 0; f < DFS_IO_FILES; f++) {
        for (size_t i = d->rolled[f]; i < last[f]; i++)
            if (d->ev[i].file == f && !d->ev[i].lost)
                event_apply(&d->durable[f], &d->ev[i]);
        d->rolled[f] = last[f];
    }
    d->rolled_at = at;
}

static struct test_disk *disk_new(uint64_t seed) {
    struct test_disk *d = must(calloc(1, sizeof *d));
    pthread_mutex_init(&d->mu, NULL);
    d->rng.s = seed;
    d->can_allocate = true;
    return d;
}

struct test_disk *test_disk_crash(struct test_disk *d, size_t at, enum test_cut how, uint64_t seed) {
    struct rng rng = {seed};
    struct test_disk *out = disk_new(rng_next(&rng));
    assert(at <= d->nev);
    if (how == TEST_CUT_KILL && d->any_lost) { /* the host's cache still has what its disk will never get */
        for (int f = 0; f < DFS_IO_FILES; f++)
            file_copy(&out->file[f], &d->base[f]);
        for (size_t i = 0; i < at; i++)
            event_apply(&out->file[d->ev[i].file], &d->ev[i]);
        return out;
    }
    roll(d, at);
    for (int f = 0; f < DFS_IO_FILES; f++)
        file_copy(&out->file[f], &d->durable[f]);
    size_t last = at;
    for (size_t i = DFS_MIN(d->rolled[0], d->rolled[1]); i < at; i++)
        if (i >= d->rolled[d->ev[i].file] && d->ev[i].kind == EV_WRITE)
            last = i;
    const uint64_t often = rng_range(&rng, 1, 4); /* of 5 writes, so many arrive */
    for (size_t i = DFS_MIN(d->rolled[0], d->rolled[1]); i < at; i++) {
        const struct event *e = &d->ev[i];
        struct file *f = &out->file[e->file];
        if (i < d->rolled[e->file] || (e->lost && how != TEST_CUT_KILL))
            continue;
        switch (how) {
        case TEST_CUT_KILL:
            event_apply(f, e);
            break;
        case TEST_CUT_JOURNAL:
            if (e->file == DFS_IO_JOURNAL)
                event_apply(f, e);
            break;
        case TEST_CUT_DATA:
            if (e->file == DFS_IO_DATA)
                event_apply(f, e);
            break;
        case TEST_CUT_TORN:
            if (i == last)
                event_tear(f, e, &rng);
            else
                event_apply(f, e);
            break;
        case TEST_CUT_RANDOM:
            if (rng_one_in(&rng, 6))
                event_tear(f, e, &rng);
            else if (rng_below(&rng, 5) < often)
                event_apply(f, e);
            break;
        case TEST_CUT_NONE:
        case TEST_CUTS:
            break;
        }
    }
    return out;
}

/* ---- the interface -------------------------------------------------------------------------------------------- */

/* Counts a call; its error if it is to fail. */
static int fault(struct test_disk *d, enum test_call call) {
    if (d->fault.paused)
        return 0;
    const uint64_t n = ++d->calls[call];
    if (!d->fault.armed || d->fault.call != call || n < d->fault.n || n - d->fault.n > d->fault.after)
        return 0;
    d->faults++;
    return d->fault.err;
}

static struct test_disk *lock(struct dfs_io *io) {
    struct test_disk *d = ((struct test_io *)io)->d;
    pthread_mutex_lock(&d->mu);
    return d;
}

static int unlock(struct test_disk *d, int r) {
    pthread_mutex_unlock(&d->mu);
    return r;
}

static void check_aligned(enum dfs_io_file file, const void *buf, size_t len, uint64_t off) {
    if (file == DFS_IO_DATA && ((uintptr_t)buf % DFS_IO_ALIGN || len % DFS_IO_ALIGN || off % DFS_IO_ALIGN || len == 0)) {
        fprintf(stderr, "unaligned transfer: buf=%p len=%zu off=%llu\n", buf, len, (unsigned long long)off);
        abort();
    }
}

static int do_read(struct test_disk *d, enum dfs_io_file file, void *buf, size_t len, uint64_t off) {
    const int r = fault(d, TEST_READ);
    if (r == 0)
        file_read(&d->file[file], buf, len, off);
    return r;
}

static int do_write(struct test_disk *d, enum dfs_io_file file, const void *buf, size_t len, uint64_t off) {
    int r = fault(d, TEST_WRITE);
    if (r != 0 && d->fault.half) {
        const size_t half = file == DFS_IO_DATA ? DFS_ROUND_DOWN(len / 2, SECTOR) : len / 2;
        if (half) {
            file_write(&d->file[file], buf, half, off);
            note(d, EV_WRITE, file, buf, half, off);
        }
    }
    if (r != 0)
        return r;
    const uint64_t more = file_missing(&d->file[file], len, off);
    if (d->capacity && d->used + more > d->capacity / PAGE)
        return -ENOSPC;
    d->used += more;
    file_write(&d->file[file], buf, len, off);
    note(d, EV_WRITE, file, buf, len, off);
    return 0;
}

static int test_read(struct dfs_io *io, enum dfs_io_file file, void *buf, size_t len, uint64_t off) {
    check_aligned(file, buf, len, off);
    struct test_disk *d = lock(io);
    return unlock(d, do_read(d, file, buf, len, off));
}

static int test_write(struct dfs_io *io, enum dfs_io_file file, const void *buf, size_t len, uint64_t off) {
    check_aligned(file, buf, len, off);
    struct test_disk *d = lock(io);
    return unlock(d, do_write(d, file, buf, len, off));
}

static int test_sync(struct dfs_io *io, enum dfs_io_file file) {
    struct test_disk *d = lock(io);
    const int r = fault(d, TEST_SYNC);
    if (r == 0) {
        note(d, EV_SYNC, file, NULL, 0, 0);
        return unlock(d, 0);
    }
    /* As Linux does it: what could not be written is forgotten, and the next sync knows nothing of it. */
    for (size_t i = d->nev; i-- > 0 && !(d->ev[i].kind == EV_SYNC && d->ev[i].file == file);)
        if (d->ev[i].file == file && rng_one_in(&d->rng, 2))
            d->ev[i].lost = d->any_lost = true;
    return unlock(d, r);
}

static int test_allocate(struct dfs_io *io, enum dfs_io_file file, uint64_t off, uint64_t len) {
    struct test_disk *d = lock(io);
    const int r = fault(d, TEST_ALLOCATE);
    if (r != 0)
        return unlock(d, r);
    if (!d->can_allocate)
        return unlock(d, -EOPNOTSUPP);
    const uint64_t more = file_missing(&d->file[file], len, off);
    if (d->capacity && d->used + more > d->capacity / PAGE)
        return unlock(d, -ENOSPC);
    d->used += more;
    file_allocate(&d->file[file], len, off);
    note(d, EV_ALLOCATE, file, NULL, len, off);
    return unlock(d, 0);
}

static int test_punch(struct dfs_io *io, enum dfs_io_file file, uint64_t off, uint64_t len) {
    struct test_disk *d = lock(io);
    const int r = fault(d, TEST_PUNCH);
    if (r != 0)
        return unlock(d, r);
    d->used -= file_punch(&d->file[file], len, off);
    note(d, EV_PUNCH, file, NULL, len, off);
    return unlock(d, 0);
}

static int test_size(struct dfs_io *io, enum dfs_io_file file, uint64_t *size) {
    struct test_disk *d = lock(io);
    *size = d->file[file].size;
    return unlock(d, fault(d, TEST_SIZE));
}

static int test_host_free(struct dfs_io *io, uint64_t *bytes, uint64_t *total) {
    struct test_disk *d = lock(io);
    *total = d->capacity ? d->capacity : (uint64_t)1 << 40;
    *bytes = *total - d->used * PAGE;
    return unlock(d, fault(d, TEST_HOST_FREE));
}

static int batch_begin(struct dfs_io *io, struct dfs_io_batch **out) {
    struct test_disk *d = lock(io);
    const int r = unlock(d, fault(d, TEST_BATCH));
    if (r != 0)
        return r;
    *out = must(calloc(1, sizeof **out));
    (*out)->io = (struct test_io *)io;
    return 0;
}

static int batch_submit(struct dfs_io_batch *b, struct dfs_io_req *req) {
    check_aligned(req->file, req->buf, req->len, req->off);
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 16;
        b->pending = must(realloc(b->pending, b->cap * sizeof(struct dfs_io_req *)));
    }
    b->pending[b->n++] = req;
    return 0;
}

static int batch_wait(struct dfs_io_batch *b, unsigned left) {
    struct test_disk *d = lock(&b->io->base);
    while (b->n > left) {
        const size_t i = (size_t)rng_below(&d->rng, b->n);
        struct dfs_io_req *req = b->pending[i];
        b->pending[i] = b->pending[--b->n];
        req->result = req->op == DFS_IO_READ ? do_read(d, req->file, req->buf, req->len, req->off)
                                             : do_write(d, req->file, req->buf, req->len, req->off);
        if (req->result != 0 && b->error == 0)
            b->error = req->result;
    }
    return unlock(d, b->error);
}

static void batch_end(struct dfs_io_batch *b) {
    batch_wait(b, 0);
    free(b->pending);
    free(b);
}

static void test_free(struct dfs_io *io) {
    free(io);
}

static const struct dfs_io_ops test_ops = {
    .read = test_read,
    .write = test_write,
    .sync = test_sync,
    .allocate = test_allocate,
    .punch = test_punch,
    .size = test_size,
    .host_free = test_host_free,
    .batch_begin = batch_begin,
    .batch_submit = batch_submit,
    .batch_wait = batch_wait,
    .batch_end = batch_end,
    .free = test_free,
};

/* ---- the disk ------------------------------------------------------------------------------------------------- */

struct dfs_io *test_disk_io(struct test_disk *d) {
    struct test_io *io = must(calloc(1, sizeof *io));
    io->base.ops = &test_ops;
    io->d = d;
    return &io->base;
}

struct test_disk *test_disk_new(uint64_t seed) {
    return disk_new(seed);
}

struct test_disk *test_disk_copy(const struct test_disk *d) {
    struct test_disk *out = disk_new(d->rng.s);
    for (int f = 0; f < DFS_IO_FILES; f++)
        file_copy(&out->file[f], &d->file[f]);
    return out;
}

static void forget_events(struct test_disk *d) {
    for (size_t i = 0; i < d->nev; i++)
        free(d->ev[i].data);
    d->nev = d->rolled_at = 0;
    d->any_lost = false;
    for (int f = 0; f < DFS_IO_FILES; f++) {
        file_free(&d->base[f]);
        file_free(&d->durable[f]);
        d->rolled[f] = 0;
    }
}

void test_disk_free(struct test_disk *d) {
    if (!d)
        return;
    forget_events(d);
    for (int f = 0; f < DFS_IO_FILES; f++)
        file_free(&d->file[f]);
    free(d->ev);
    pthread_mutex_destroy(&d->mu);
    free(d);
}

void test_disk_record(struct test_disk *d) {
    forget_events(d);
    for (int f = 0; f < DFS_IO_FILES; f++)
        file_copy(&d->base[f], &d->file[f]);
    d->recording = true;
}

size_t test_disk_events(const struct test_disk *d) {
    return d->nev;
}

bool test_disk_is_sync(const struct test_disk *d, size_t i) {
    return d->ev[i].kind == EV_SYNC;
}

void test_disk_fail(struct test_disk *d, enum test_call call, uint64_t n, int err, uint64_t after, bool half) {
    test_disk_fail_nothing(d);
    d->fault.call = call;
    d->fault.n = n;
    d->fault.err = err;
    d->fault.after = after;
    d->fault.half = half;
    d->fault.armed = true;
}

void test_disk_fail_nothing(struct test_disk *d) {
    d->fault.armed = false;
    d->faults = 0;
    memset(d->calls, 0, sizeof d->calls);
}

void test_disk_pause(struct test_disk *d, bool pause) {
    d->fault.paused = pause;
}

uint64_t test_disk_calls(const struct test_disk *d, enum test_call call) {
    return d->calls[call];
}

uint64_t test_disk_faults(const struct test_disk *d) {
    return d->faults;
}

void test_disk_capacity(struct test_disk *d, uint64_t bytes) {
    d->capacity = bytes;
}

uint64_t test_disk_used(const struct test_disk *d) {
    return d->used * PAGE;
}

void test_disk_can_allocate(struct test_disk *d, bool yes) {
    d->can_allocate = yes;
}

size_t test_disk_pages(const struct test_disk *d, enum dfs_io_file file) {
    size_t n = 0;
    for (size_t i = 0; i < d->file[file].n; i++)
        n += d->file[file].page[i] != NULL;
    return n;
}

uint64_t test_disk_page_offset(const struct test_disk *d, enum dfs_io_file file, size_t k) {
    for (size_t i = 0; i < d->file[file].n; i++)
        if (d->file[file].page[i] && k-- == 0)
            return (uint64_t)i * PAGE;
    abort();
}

void test_disk_flip(struct test_disk *d, enum dfs_io_file file, uint64_t off, uint8_t mask) {
    struct file *f = &d->file[file];
    file_reach(f, (size_t)(off / PAGE) + 1);
    page_own(f, (size_t)(off / PAGE))->bytes[off % PAGE] ^= mask;
}
