#include "fs/mount/options.h"

#include <getopt.h>
#include <sys/mount.h>

#include "common/util.h"
#include "fs/store/store.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

int dfs_mount_parse_size(const char *text, uint64_t *out) {
    static const char units[] = "KMGTP";
    char *end;
    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    if (*end) {
        const char unit = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
        const char *u = strchr(units, unit);
        if (!u || (strcmp(end + 1, "") != 0 && strcmp(end + 1, "iB") != 0))
            return -EINVAL;
        if (__builtin_mul_overflow(n, UINT64_C(1) << (10 * (u - units + 1)), &n))
            return -ERANGE;
    }
    *out = n;
    return 0;
}

int dfs_mount_parse_compression(const char *text, int *level) {
    if (strcmp(text, "none") == 0)
        *level = 0;
    else if (strcmp(text, "zstd") == 0)
        *level = 1;
    else if (strncmp(text, "zstd:", 5) == 0) {
        char *end;
        const long n = strtol(text + 5, &end, 10);
        if (end == text + 5 || *end || n < 1 || n > 19)
            return -EINVAL;
        *level = (int)n;
    } else
        return -EINVAL;
    return 0;
}

struct flag {
    const char *name;
    unsigned long set, clear;
};

static const struct flag flags[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"nosymfollow", MS_NOSYMFOLLOW, 0},
    {"symfollow", 0, MS_NOSYMFOLLOW},
    {"silent", MS_SILENT, 0},
    {"loud", 0, MS_SILENT},
    {"user", MS_NODEV | MS_NOSUID | MS_NOEXEC, 0},
    {"users", MS_NODEV | MS_NOSUID | MS_NOEXEC, 0},
    {"owner", MS_NODEV | MS_NOSUID, 0},
    {"group", MS_NODEV | MS_NOSUID, 0},
    /* what mount(8) and init systems act on, not we */
    {"defaults", 0, 0},
    {"auto", 0, 0},
    {"noauto", 0, 0},
    {"nouser", 0, 0},
    {"nofail", 0, 0},
    {"_netdev", 0, 0},
    {"default_permissions", 0, 0},
};

static int parse_uint(const char *name, const char *value, unsigned max, unsigned *out, struct dfs_err *err) {
    char *end;
    errno = 0;
    const unsigned long n = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || n > max)
        return dfs_err_set(err, -EINVAL, "option %s=%s: a number from 0 to %u is expected", name, value, max);
    *out = (unsigned)n;
    return 0;
}

static int parse_bytes(const char *name, const char *value, uint64_t min, uint64_t max, uint64_t *out,
                       struct dfs_err *err) {
    uint64_t n;
    if (dfs_mount_parse_size(value, &n) < 0)
        return dfs_err_set(err, -EINVAL, "option %s=%s: a size such as 64K, 128M or 10G is expected", name, value);
    if (n < min || n > max)
        return dfs_err_set(err, -EINVAL, "option %s=%s: must be from %llu to %llu bytes", name, value,
                           (unsigned long long)min, (unsigned long long)max);
    *out = n;
    return 0;
}

static int parse_path(const char *name, const char *value, char *out, struct dfs_err *err) {
    if (!*value || strlen(value) >= PATH_MAX)
        return dfs_err_set(err, -EINVAL, "option %s: a path of 1 to %d bytes is expected", name, PATH_MAX - 1);
    memcpy(out, value, strlen(value) + 1);
    return 0;
}

static int parse_value(struct dfs_mount_options *o, const char *name, const char *value, struct dfs_err *err) {
    uint64_t n;
    int r;
    if (strcmp(name, "root") == 0)
        return parse_path(name, value, o->root, err);
    if (strcmp(name, "log") == 0)
        return parse_path(name, value, o->log, err);
    if (strcmp(name, "cache") == 0)
        return parse_bytes(name, value, 16u << 20, UINT64_C(1) << 40, &o->cache, err);
    if (strcmp(name, "size") == 0)
        return parse_bytes(name, value, 0, INT64_MAX, &o->size, err);
    if (strcmp(name, "threads") == 0) {
        if ((r = parse_uint(name, value, 64, &o->threads, err)) == 0 && !o->threads)
            r = dfs_err_set(err, -EINVAL, "option threads=0: at least one thread is needed");
        return r;
    }
    if (strcmp(name, "checkpoint") == 0)
        return parse_uint(name, value, 3600000, &o->checkpoint_ms, err);
    if (strcmp(name, "spin") == 0)
        return parse_uint(name, value, 1000, &o->spin_us, err);
    if (strcmp(name, "chunk") == 0) {
        if ((r = parse_bytes(name, value, 4096, 1u << 20, &n, err)) < 0)
            return r;
        if (n & (n - 1))
            return dfs_err_set(err, -EINVAL, "option chunk=%s: must be a power of two", value);
        o->chunk = (uint32_t)n;
        return 0;
    }
    if (strcmp(name, "journal") == 0) {
        if ((r = parse_bytes(name, value, 4u << 20, 1u << 30, &n, err)) < 0)
            return r;
        if (n % (1u << 20))
            return dfs_err_set(err, -EINVAL, "option journal=%s: must be a multiple of 1 MiB", value);
        o->journal = (uint32_t)n;
        return 0;
    }
    if (strcmp(name, "compression") == 0) {
        if (dfs_mount_parse_compression(value, &o->compression) < 0)
            return dfs_err_set(err, -EINVAL, "option compression=%s: none, zstd or zstd:1 to zstd:19 is expected", value);
        return 0;
    }
    if (strcmp(name, "user") == 0) {
        o->flags |= MS_NODEV | MS_NOSUID | MS_NOEXEC;
        return 0;
    }
    return dfs_err_set(err, -EINVAL, "unknown option: %s=", name);
}

static int parse_word(struct dfs_mount_options *o, const char *name, struct dfs_err *err) {
    static const char *const valued[] = {"root",       "log",   "cache", "size",    "threads",
                                         "checkpoint", "spin", "chunk", "journal", "compression"};
    for (size_t i = 0; i < DFS_ARRAY_SIZE(flags); i++) {
        if (strcmp(name, flags[i].name) == 0) {
            o->flags = (o->flags & ~flags[i].clear) | flags[i].set;
            return 0;
        }
    }
    for (size_t i = 0; i < DFS_ARRAY_SIZE(valued); i++) {
        if (strcmp(name, valued[i]) == 0)
            return dfs_err_set(err, -EINVAL, "option %s: needs a value (%s=…)", name, name);
    }
    if (strcmp(name, "noatime") == 0)
        o->atime = DFS_ATIME_NONE;
    else if (strcmp(name, "relatime") == 0 || strcmp(name, "atime") == 0 || strcmp(name, "nostrictatime") == 0)
        o->atime = DFS_ATIME_RELATIME;
    else if (strcmp(name, "strictatime") == 0 || strcmp(name, "norelatime") == 0)
        o->atime = DFS_ATIME_STRICT;
    else if (strcmp(name, "nodiratime") == 0)
        o->nodiratime = true;
    else if (strcmp(name, "diratime") == 0)
        o->nodiratime = false;
    else if (strcmp(name, "allow_other") == 0)
        o->allow_other = true;
    else if (strcmp(name, "writeback") == 0)
        o->writeback = true;
    else if (strcmp(name, "nowriteback") == 0)
        o->writeback = false;
    else if (strcmp(name, "create") == 0)
        o->create = true;
    else if (strcmp(name, "remount") == 0)
        o->remount = true;
    else
        return dfs_err_set(err, -EINVAL, "unknown option: %s", name);
    return 0;
}

static int parse_list(struct dfs_mount_options *o, const char *list, struct dfs_err *err) {
    cleanup_free char *copy = strdup(list);
    if (!copy)
        return dfs_err_sys(err, -ENOMEM, "options");
    char *rest = copy, *word;
    while ((word = strsep(&rest, ","))) {
        if (!*word || strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0 || strncmp(word, "comment=", 8) == 0)
            continue;
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        const int r = value ? parse_value(o, word, value, err) : parse_word(o, word, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A path has a '/'; anything else is a volume's name below the root. */
static int resolve(struct dfs_mount_options *o, struct dfs_err *err) {
    int n;
    if (strchr(o->source, '/')) {
        n = snprintf(o->dir, sizeof o->dir, "%s", o->source);
    } else {
        if (!dfs_volume_name_valid(o->source))
            return dfs_err_set(err, -EINVAL, "\"%s\" is no name of a volume: letters, digits, '_', '.', '-' are allowed",
                               o->source);
        n = snprintf(o->dir, sizeof o->dir, "%s/%s", o->root, o->source);
    }
    return n < (int)sizeof o->dir ? 0 : dfs_err_set(err, -ENAMETOOLONG, "the volume's path is too long");
}

int dfs_mount_options_parse(int argc, char **argv, struct dfs_mount_options *o, struct dfs_err *err) {
    static const struct option longs[] = {
        {"help", no_argument, NULL, 'h'},        {"version", no_argument, NULL, 'V'},
        {"root", required_argument, NULL, 'R'},  {"options", required_argument, NULL, 'o'},
        {"foreground", no_argument, NULL, 'f'},  {"read-only", no_argument, NULL, 'r'},
        {"rw", no_argument, NULL, 'w'},          {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int c, r = 0;
    memset(o, 0, sizeof *o);
    strcpy(o->root, DFS_MOUNT_ROOT);
    o->compression = -1;
    opterr = 0;
    optind = 0; /* start anew, also where this was called before */
    while (r == 0 && (c = getopt_long(argc, argv, ":o:frwnsvhVt:N:", longs, NULL)) != -1) {
        switch (c) {
        case 'o': r = parse_list(o, optarg, err); break;
        case 'R': r = parse_path("root", optarg, o->root, err); break;
        case 'f': o->foreground = true; break;
        case 'r': o->flags |= MS_RDONLY; break;
        case 'w': o->flags &= ~(unsigned long)MS_RDONLY; break;
        case 'v': o->verbose = true; break;
        case 'h': o->help = true; return 0;
        case 'V': o->version = true; return 0;
        case 'n': /* there is no mtab */
        case 's': /* unknown options are errors all the same */
        case 't':
        case 'N': break;
        case ':': return dfs_err_set(err, -EINVAL, "%s needs a value", argv[optind - 1]);
        default: return dfs_err_set(err, -EINVAL, "unknown option %s", argv[optind - 1]);
        }
    }
    if (r < 0)
        return r;
    if (argc - optind != 2)
        return dfs_err_set(err, -EINVAL, "a volume and a mount point are expected (mount.dfs --help says more)");
    if ((r = parse_path("volume", argv[optind], o->source, err)) < 0 ||
        (r = parse_path("mount point", argv[optind + 1], o->mountpoint, err)) < 0)
        return r;
    if (!o->create && (o->size || o->chunk || o->journal || o->compression >= 0))
        return dfs_err_set(err, -EINVAL, "size=, chunk=, journal= and compression= are for a new volume: add create");
    return resolve(o, err);
}
