/* A disk in memory for testing the engine: keeps every write and flush, makes the image of any crash, injects errors.
 *
 * A `struct test_disk` holds the two files of a store and outlives the store; test_disk_io() gives a struct dfs_io on it
 * (owned by the store, as the engine wants it). Pages are shared between copies, so that an image costs little.
 *
 * Writes of a batch happen when they are waited for, in random order: what the engine must not rely on, it does not get.
 * Thread-safe, one mutex per disk; images are made while no store is using the disk. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/store/io.h"

struct test_disk;

struct test_disk *test_disk_new(uint64_t seed);
/* What is written now, without history, faults or a limit of space. */
struct test_disk *test_disk_copy(const struct test_disk *d);
void test_disk_free(struct test_disk *d);
struct dfs_io *test_disk_io(struct test_disk *d);

/* ---- crash images ---- */

/* Everything written so far counts as durable; from now on events are kept. */
void test_disk_record(struct test_disk *d);
size_t test_disk_events(const struct test_disk *d);
/* Is event `i` a completed sync? */
bool test_disk_is_sync(const struct test_disk *d, size_t i);

enum test_cut {
    TEST_CUT_KILL,    /* the process ended: every write counts */
    TEST_CUT_NONE,    /* power cut, nothing that was not synced reached the disk */
    TEST_CUT_RANDOM,  /* any subset of the unsynced, some of it torn at sectors */
    TEST_CUT_JOURNAL, /* unsynced journal writes are there, unsynced data is not */
    TEST_CUT_DATA,    /* the other way round */
    TEST_CUT_TORN,    /* all but the last unsynced write, which is torn */
    TEST_CUTS
};
/* The disk after a crash just before event `at`. Cheapest when `at` does not go down from call to call. */
struct test_disk *test_disk_crash(struct test_disk *d, size_t at, enum test_cut how, uint64_t seed);

/* ---- faults ---- */

enum test_call { TEST_READ, TEST_WRITE, TEST_SYNC, TEST_ALLOCATE, TEST_PUNCH, TEST_SIZE, TEST_HOST_FREE, TEST_BATCH, TEST_CALLS };
/* The n-th call (from 1, counted from now) of this kind fails with `err`; `after` calls more fail as well. `half`: half of
 * a failing write is written all the same. A failed sync loses some of what was not durable, for good. */
void test_disk_fail(struct test_disk *d, enum test_call call, uint64_t n, int err, uint64_t after, bool half);
void test_disk_fail_nothing(struct test_disk *d);
/* Neither fails nor counts calls until continued. */
void test_disk_pause(struct test_disk *d, bool pause);
uint64_t test_disk_calls(const struct test_disk *d, enum test_call call); /* since the last test_disk_fail*() */
uint64_t test_disk_faults(const struct test_disk *d);                      /* how many calls were made to fail */

/* Host space for both files together, counted in 4 KiB pages. 0: no limit. */
void test_disk_capacity(struct test_disk *d, uint64_t bytes);
uint64_t test_disk_used(const struct test_disk *d);
/* Does the host know fallocate? (yes) */
void test_disk_can_allocate(struct test_disk *d, bool yes);

/* ---- damage ---- */

/* Pages that hold something; page k of them lies at *off. */
size_t test_disk_pages(const struct test_disk *d, enum dfs_io_file file);
uint64_t test_disk_page_offset(const struct test_disk *d, enum dfs_io_file file, size_t k);
void test_disk_flip(struct test_disk *d, enum dfs_io_file file, uint64_t off, uint8_t mask);
