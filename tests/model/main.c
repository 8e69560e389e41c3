/* Model tests of the engine: test_model [--seed N] [--histories N] [--minutes N] [--jobs N] VARIANT
 *
 * Runs histories with seeds N, N+1, … on some processes and ends with a line of figures. A failure prints its seed:
 * `test_model --seed THAT --histories 1 VARIANT` shows it again. */
#include <getopt.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "common/log.h"
#include "common/util.h"
#include "tests/model/variants.h"

static const struct {
    const char *name;
    bool (*run)(uint64_t seed);
} variants[] = {{"crash", variant_crash}, {"fault", variant_fault}, {"nospace", variant_nospace}, {"flip", variant_flip}};

struct shared {
    struct variant_counts counts[64];
    uint64_t histories[64];
    uint64_t seed[64]; /* what the process is at */
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int usage(void) {
    fprintf(stderr, "usage: test_model [--seed N] [--histories N] [--minutes N] [--jobs N] crash|fault|nospace|flip\n");
    return 2;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"histories", required_argument, NULL, 'n'},
                                            {"minutes", required_argument, NULL, 'm'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    uint64_t seed = 1, histories = 100;
    double minutes = 0;
    unsigned jobs = 1;
    pid_t pids[64];
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            histories = strtoull(optarg, NULL, 0);
            break;
        case 'm':
            minutes = strtod(optarg, NULL);
            break;
        case 'j':
            jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        default:
            return usage();
        }
    size_t v = 0;
    while (optind < argc && v < DFS_ARRAY_SIZE(variants) && strcmp(variants[v].name, argv[optind]) != 0)
        v++;
    if (optind + 1 != argc || v == DFS_ARRAY_SIZE(variants) || jobs < 1 || jobs > 64)
        return usage();
    dfs_log_open("test_model", DFS_LOG_STDERR, getenv("DFS_TEST_LOG") ? DFS_LOG_DEBUG : DFS_LOG_QUIET);

    struct shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED)
        abort();
    const double begin = seconds();
    for (unsigned j = 0; j < jobs; j++) {
        pids[j] = jobs > 1 ? fork() : 0;
        if (pids[j] < 0)
            return 1;
        if (pids[j] != 0)
            continue;
        bool ok = true;
        for (uint64_t i = j; ok && (minutes > 0 ? seconds() - begin < minutes * 60 : i < histories); i += jobs) {
            sh->seed[j] = seed + i;
            ok = variants[v].run(seed + i);
            sh->histories[j]++;
        }
        sh->counts[j] = variant_counts;
        if (jobs > 1)
            exit(!ok);
        if (!ok)
            return 1;
    }
    bool ok = true;
    for (unsigned j = 0; jobs > 1 && j < jobs; j++) {
        int status;
        const bool ended = waitpid(pids[j], &status, 0) == pids[j] && WIFEXITED(status);
        if (!ended)
            fprintf(stderr, "seed %" PRIu64 ": the process died\n", sh->seed[j]);
        ok &= ended && WEXITSTATUS(status) == 0;
    }
    struct variant_counts sum = {0};
    uint64_t done = 0;
    for (unsigned j = 0; j < jobs; j++) {
        done += sh->histories[j];
        sum.operations += sh->counts[j].operations;
        sum.crashes += sh->counts[j].crashes;
        sum.faults += sh->counts[j].faults;
        sum.damages += sh->counts[j].damages;
    }
    printf("%s: %" PRIu64 " histories from seed %" PRIu64 ", %" PRIu64 " operations, %" PRIu64 " crashes, %" PRIu64
           " faults, %" PRIu64 " damages, %.1f s: %s\n",
           variants[v].name, done, seed, sum.operations, sum.crashes, sum.faults, sum.damages, seconds() - begin,
           ok ? "fine" : "FAILED");
    return ok ? 0 : 1;
}
