/* volume.json: a volume's identity and parameters, for people and programs to read.
 *
 * Reading is strict: a key that is not known, a value out of its range or a key twice is refused by name, because a
 * parameter that is silently ignored is worse than a volume that says what it does not understand. */
#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <sys/random.h>
#include <time.h>

#include "common/util.h"
#include "fs/store/store.h"

#define FORMAT 1
#define FILE_NAME "volume.json"
#define TEMP_NAME "volume.json.new"
#define TEXT_MAX 65536u
#define CHUNK_MIN 4096u
#define CHUNK_MAX (1u << 20)
#define JOURNAL_UNIT (1u << 20)
#define JOURNAL_MIN (4u << 20)
#define JOURNAL_MAX (1u << 30)
#define LEVEL_MAX 19

void dfs_volume_params_init(struct dfs_volume_params *p) {
    *p = (struct dfs_volume_params){
        .chunk_size = 128u << 10,
        .journal_size = 64u << 20,
        .compression_level = 1,
        .root_mode = 0755,
        .created = time(NULL),
    };
    /* A random (version 4) UUID: each new volume needs its own. */
    if (getrandom(p->uuid, sizeof p->uuid, 0) != (ssize_t)sizeof p->uuid)
        abort(); /* does not happen for 16 bytes; a volume with a predictable identity must not come about */
    p->uuid[6] = (uint8_t)((p->uuid[6] & 0x0f) | 0x40);
    p->uuid[8] = (uint8_t)((p->uuid[8] & 0x3f) | 0x80);
}

bool dfs_volume_name_valid(const char *name) {
    if (!isascii((unsigned char)name[0]) || !isalnum((unsigned char)name[0]))
        return false;
    size_t n = 0;
    for (; name[n]; n++) {
        const unsigned char c = (unsigned char)name[n];
        if (n >= DFS_NAME_MAX || !isascii(c) || (!isalnum(c) && !strchr("_.-", c)))
            return false;
    }
    return !strstr(name, "..");
}

/* ---- values --------------------------------------------------------------------------------------------------- */

static int uuid_parse(const char *text, uint8_t uuid[16]) {
    size_t at = 0;
    if (strlen(text) != 36)
        return -EINVAL;
    for (size_t i = 0; i < 36; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i] != '-')
                return -EINVAL;
            continue;
        }
        const unsigned char c = (unsigned char)text[i];
        if (!isxdigit(c))
            return -EINVAL;
        const unsigned digit = isdigit(c) ? c - (unsigned)'0' : (unsigned)tolower(c) - 'a' + 10u;
        uuid[at / 2] = (uint8_t)(at % 2 ? uuid[at / 2] | digit : digit << 4);
        at++;
    }
    return 0;
}

static void uuid_format(const uint8_t uuid[16], char text[37]) {
    char *p = text;
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", uuid[i]);
    }
}

static int compression_parse(const char *text, int *level) {
    if (strcmp(text, "none") == 0) {
        *level = 0;
        return 0;
    }
    if (strncmp(text, "zstd:", 5) != 0 || !isdigit((unsigned char)text[5]))
        return -EINVAL;
    char *end;
    const long n = strtol(text + 5, &end, 10);
    if (*end || n < 1 || n > LEVEL_MAX)
        return -EINVAL;
    *level = (int)n;
    return 0;
}

static int mode_parse(const char *text, uint32_t *mode) {
    if (text[0] != '0' || strlen(text) > 5)
        return -EINVAL;
    char *end;
    const unsigned long n = strtoul(text, &end, 8);
    if (*end || n > 07777)
        return -EINVAL;
    *mode = (uint32_t)n;
    return 0;
}

/* ---- the object ----------------------------------------------------------------------------------------------- */

static int want_int(const json_t *v, const char *key, int64_t min, int64_t max, int64_t *out, struct dfs_err *err) {
    if (!json_is_integer(v))
        return dfs_err_set(err, -EINVAL, "'%s' must be a number", key);
    *out = json_integer_value(v);
    if (*out < min || *out > max)
        return dfs_err_set(err, -EINVAL, "'%s' is %" PRId64 ", it must be from %" PRId64 " to %" PRId64, key, *out, min,
                           max);
    return 0;
}

static int want_string(const json_t *v, const char *key, const char **out, struct dfs_err *err) {
    *out = json_string_value(v);
    if (!*out || strlen(*out) != json_string_length(v))
        return dfs_err_set(err, -EINVAL, "'%s' must be a string", key);
    return 0;
}

static int take_uint32(const json_t *v, const char *key, uint32_t min, uint32_t max, uint32_t *out,
                       struct dfs_err *err) {
    int64_t n = 0;
    const int r = want_int(v, key, min, max, &n, err);
    if (r == 0)
        *out = (uint32_t)n;
    return r;
}

static int take_format(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    (void)p;
    if (json_is_integer(v) && json_integer_value(v) > FORMAT)
        return dfs_err_set(err, -EOPNOTSUPP, "format %" JSON_INTEGER_FORMAT " is newer than this program knows (%d)",
                           json_integer_value(v), FORMAT);
    int64_t n = 0;
    return want_int(v, "format", FORMAT, FORMAT, &n, err);
}

static int take_name(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const char *s;
    const int r = want_string(v, "name", &s, err);
    if (r != 0)
        return r;
    if (!dfs_volume_name_valid(s))
        return dfs_err_set(err, -EINVAL, "'name' must be letters, digits, '_', '.' and '-', and begin with a letter or digit");
    snprintf(p->name, sizeof p->name, "%s", s);
    return 0;
}

static int take_uuid(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const char *s;
    const int r = want_string(v, "uuid", &s, err);
    if (r != 0)
        return r;
    return uuid_parse(s, p->uuid) == 0 ? 0 : dfs_err_set(err, -EINVAL, "'uuid' is not a UUID");
}

static int take_size_limit(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    int64_t n = 0;
    const int r = want_int(v, "size_limit", 0, INT64_MAX, &n, err);
    if (r == 0)
        p->size_limit = (uint64_t)n;
    return r;
}

static int take_chunk_size(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const int r = take_uint32(v, "chunk_size", CHUNK_MIN, CHUNK_MAX, &p->chunk_size, err);
    if (r == 0 && (p->chunk_size & (p->chunk_size - 1)))
        return dfs_err_set(err, -EINVAL, "'chunk_size' is %" PRIu32 ", it must be a power of two", p->chunk_size);
    return r;
}

static int take_journal_size(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const int r = take_uint32(v, "journal_size", JOURNAL_MIN, JOURNAL_MAX, &p->journal_size, err);
    if (r == 0 && p->journal_size % JOURNAL_UNIT)
        return dfs_err_set(err, -EINVAL, "'journal_size' is %" PRIu32 ", it must be a multiple of 1 MiB",
                           p->journal_size);
    return r;
}

static int take_compression(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const char *s;
    const int r = want_string(v, "compression", &s, err);
    if (r != 0)
        return r;
    return compression_parse(s, &p->compression_level) == 0
               ? 0
               : dfs_err_set(err, -EINVAL, "'compression' must be \"none\" or \"zstd:1\" to \"zstd:%d\"", LEVEL_MAX);
}

static int take_created(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    return want_int(v, "created", INT64_MIN, INT64_MAX, &p->created, err);
}

static int take_root_uid(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    return take_uint32(v, "root_uid", 0, UINT32_MAX, &p->root_uid, err);
}

static int take_root_gid(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    return take_uint32(v, "root_gid", 0, UINT32_MAX, &p->root_gid, err);
}

static int take_root_mode(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err) {
    const char *s;
    const int r = want_string(v, "root_mode", &s, err);
    if (r != 0)
        return r;
    return mode_parse(s, &p->root_mode) == 0
               ? 0
               : dfs_err_set(err, -EINVAL, "'root_mode' must be octal, from \"0000\" to \"07777\"");
}

static const struct {
    const char *name;
    int (*take)(const json_t *v, struct dfs_volume_params *p, struct dfs_err *err);
} keys[] = {
    {"format", take_format}, /* first: what a newer format means by the others is not ours to judge */
    {"name", take_name},
    {"uuid", take_uuid},
    {"size_limit", take_size_limit},
    {"chunk_size", take_chunk_size},
    {"journal_size", take_journal_size},
    {"compression", take_compression},
    {"created", take_created},
    {"root_uid", take_root_uid},
    {"root_gid", take_root_gid},
    {"root_mode", take_root_mode},
};

static bool known(const char *key) {
    for (size_t i = 0; i < DFS_ARRAY_SIZE(keys); i++)
        if (strcmp(key, keys[i].name) == 0)
            return true;
    return false;
}

static int take_all(json_t *root, struct dfs_volume_params *p, struct dfs_err *err) {
    if (!json_is_object(root))
        return dfs_err_set(err, -EINVAL, "it is not a JSON object");
    for (size_t i = 0; i < DFS_ARRAY_SIZE(keys); i++) {
        const json_t *v = json_object_get(root, keys[i].name);
        if (!v)
            return dfs_err_set(err, -EINVAL, "the key '%s' is missing", keys[i].name);
        const int r = keys[i].take(v, p, err);
        if (r != 0)
            return r;
    }
    const char *key;
    json_t *v;
    json_object_foreach(root, key, v) {
        if (!known(key))
            return dfs_err_set(err, -EINVAL, "the key '%s' is not known", key);
    }
    return 0;
}

int dfs_volume_params_parse(const char *text, size_t len, struct dfs_volume_params *p, struct dfs_err *err) {
    json_error_t je;
    if (len > TEXT_MAX)
        return dfs_err_set(err, -EINVAL, "it is longer than %u bytes", TEXT_MAX);
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return dfs_err_set(err, -EINVAL, "line %d: %s", je.line, je.text);
    struct dfs_volume_params got = {0};
    const int r = take_all(root, &got, err);
    json_decref(root);
    if (r == 0)
        *p = got;
    return r;
}

char *dfs_volume_params_format(const struct dfs_volume_params *p) {
    char uuid[37], compression[16] = "none", mode[8];
    uuid_format(p->uuid, uuid);
    if (p->compression_level > 0)
        snprintf(compression, sizeof compression, "zstd:%d", p->compression_level);
    snprintf(mode, sizeof mode, "0%03" PRIo32, p->root_mode & 07777);
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:s}", "format", FORMAT, "name", p->name, "uuid", uuid,
        "size_limit", (json_int_t)p->size_limit, "chunk_size", (json_int_t)p->chunk_size, "journal_size",
        (json_int_t)p->journal_size, "compression", compression, "created", (json_int_t)p->created, "root_uid",
        (json_int_t)p->root_uid, "root_gid", (json_int_t)p->root_gid, "root_mode", mode);
    if (!root)
        return NULL;
    char *text = json_dumps(root, JSON_INDENT(4));
    json_decref(root);
    return text;
}

/* ---- the file ------------------------------------------------------------------------------------------------- */

int dfs_volume_params_load(int dirfd, struct dfs_volume_params *p, struct dfs_err *err) {
    cleanup_close int fd = openat(dirfd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return dfs_err_set(err, -ENOENT, "there is no " FILE_NAME ": this is not a dfs volume");
    if (fd < 0)
        return dfs_err_sys(err, -errno, "cannot open " FILE_NAME);
    cleanup_free char *text = malloc(TEXT_MAX + 1);
    if (!text)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    size_t len = 0;
    while (len < TEXT_MAX + 1) {
        const ssize_t n = read(fd, text + len, TEXT_MAX + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dfs_err_sys(err, -errno, "cannot read " FILE_NAME);
        if (n == 0)
            break;
        len += (size_t)n;
    }
    const int r = dfs_volume_params_parse(text, len, p, err);
    if (r != 0)
        dfs_err_wrap(err, FILE_NAME " is not valid");
    return r;
}

static int write_whole(int fd, const char *text, size_t len) {
    for (size_t done = 0; done < len;) {
        const ssize_t n = write(fd, text + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

/* Replaces the file: whoever reads it, and a crash at any moment, finds the old text or the new one. */
static int replace(int dirfd, const char *text) {
    cleanup_close int fd = openat(dirfd, TEMP_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    int r = write_whole(fd, text, strlen(text));
    if (r == 0 && renameat(dirfd, TEMP_NAME, dirfd, FILE_NAME) != 0)
        r = -errno;
    if (r != 0) {
        unlinkat(dirfd, TEMP_NAME, 0);
        return r;
    }
    return fsync(dirfd) == 0 ? 0 : -errno;
}

int dfs_volume_params_save(int dirfd, const struct dfs_volume_params *p, struct dfs_err *err) {
    cleanup_free char *text = dfs_volume_params_format(p);
    struct dfs_volume_params back;
    if (!text)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    /* What could not be read again must not replace what can. */
    int r = dfs_volume_params_parse(text, strlen(text), &back, err);
    if (r != 0)
        return dfs_err_wrap(err, "these volume parameters cannot be"), r;
    r = replace(dirfd, text);
    return r == 0 ? 0 : dfs_err_sys(err, r, "cannot write " FILE_NAME);
}
