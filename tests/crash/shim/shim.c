// What a disk may do to a program, put between the program and the C library (LD_PRELOAD).
//
// It covers the files below CRASH_ROOT and does two things:
//
// 1. With CRASH_UNDO=FILE it keeps an undo log: what each write, truncation and change of a directory
//    replaced, and which fsync made what durable. After a kill -9 the harness takes back a part of
//    what no fsync covered, and so makes an image that a power cut could have left. Files that are
//    deleted or renamed over are kept as hard links in CRASH_GRAVES/INODE, so that this can be taken
//    back as well, and no inode number is used twice.
// 2. With CRASH_FAULTS it makes calls fail, come back short, or take long: rules separated by ';',
//    each  operation,class,first,count,what[,amount]
//      operation  sync | write | open | name (a name made, changed or removed)
//      class      log (…/wal/…), spare (there, a segment on its way to be one), state (…/state/…), any
//      first      the first call of that kind that is hit, from 1
//      count      how many calls, 0 for all that follow
//      what       eio | enospc | erofs | short | drop | delay | kill
//      amount     of delay: milliseconds at most, at random from a tenth of it
//    `kill` ends the program right before the call. `drop` is for proving that the harness sees a bug: the flush does nothing and says it did.
//
// With CRASH_ARM=FILE rules count only once that file is there.
// CRASH_CALLS=FILE gets one line for each rule that has hit for the first time.
//
// Records of the undo log (all numbers in the machine's order; a record's place in the file is its
// place in time, so several lives of a program can share a log):
//    struct record, then `old_len` bytes of old content (WRITE), or `old_len` bytes of
//    name (directories; RENAME has the old name, a zero, and the new name).
// A flush is recorded after it came back, with the place in the log where it began.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC = 2, SET_NAME = 3, DROP_NAME = 4, RENAME = 5, UNSEEN = 6 };
struct record {
    uint32_t magic, kind;
    uint64_t inode;    // of the file; of the directory for names
    uint64_t offset;   // WRITE: where; SYNC: place in the log when it began
    uint64_t len;      // WRITE: bytes written; names: inode the name had before, 0 for none
    uint64_t old_size; // WRITE: size of the file before; SET_NAME: inode the name has now
    uint64_t old_len;
};
#define MAGIC 0x5AFE0CE5u

enum class { NONE, OTHER, LOG, STATE, SPARE };
enum operation { OP_SYNC, OP_WRITE, OP_OPEN, OP_NAME };
enum what { EIO_ERROR, ENOSPC_ERROR, EROFS_ERROR, SHORT, DROP, DELAY, KILL };
struct rule { enum operation op; enum class class; long first, count; enum what what; long amount; long seen; int told; };
#define RULES_MAX 16
#define INODES_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], graves[PATH_MAX], arm[PATH_MAX];
static size_t root_len;
static int undo = -1, calls = -1;
static uint64_t undo_at;
static struct rule rules[RULES_MAX];
static int rule_count;
static struct { uint64_t inode; enum class class; } inodes[INODES_MAX];
static uint64_t random_state;

static int word(const char *w, const char *const *words) {
    for (int i = 0; words[i]; i++) if (!strcmp(w, words[i])) return i;
    fprintf(stderr, "crash shim: unknown word %s in CRASH_FAULTS\n", w);
    _exit(99);
}

static void parse_rules(char *text) {
    static const char *const ops[] = {"sync", "write", "open", "name", NULL};
    static const char *const classes[] = {"none", "any", "log", "state", "spare", NULL};
    static const char *const whats[] = {"eio", "enospc", "erofs", "short", "drop", "delay", "kill", NULL};
    for (char *save, *one = strtok_r(text, ";", &save); one && rule_count < RULES_MAX; one = strtok_r(NULL, ";", &save)) {
        char *inner, *f[6] = {0}; int n = 0;
        for (char *p = strtok_r(one, ",", &inner); p && n < 6; p = strtok_r(NULL, ",", &inner)) f[n++] = p;
        if (n < 5) { fprintf(stderr, "crash shim: a rule of CRASH_FAULTS is short\n"); _exit(99); }
        struct rule *r = &rules[rule_count++];
        r->op = word(f[0], ops); r->class = word(f[1], classes);
        r->first = atol(f[2]); r->count = atol(f[3]); r->what = word(f[4], whats); r->amount = n > 5 ? atol(f[5]) : 0;
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *r = getenv("CRASH_ROOT"), *u = getenv("CRASH_UNDO"), *g = getenv("CRASH_GRAVES");
    const char *f = getenv("CRASH_FAULTS"), *c = getenv("CRASH_CALLS"), *s = getenv("CRASH_SEED");
    if (!r) return;
    snprintf(root, sizeof root, "%s", r);
    root_len = strlen(root);
    random_state = s ? strtoull(s, NULL, 10) : 1;
    if (g) snprintf(graves, sizeof graves, "%s", g);
    const char *a = getenv("CRASH_ARM");
    if (a) snprintf(arm, sizeof arm, "%s", a);
    if (c) calls = syscall(SYS_openat, AT_FDCWD, c, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (u) {
        undo = syscall(SYS_openat, AT_FDCWD, u, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (undo < 0) { fprintf(stderr, "crash shim: cannot open %s\n", u); _exit(99); }
        struct stat st;
        fstat(undo, &st);
        undo_at = st.st_size;
    }
    if (f) { char *copy = strdup(f); parse_rules(copy); free(copy); }
}

// --- what is watched ---

static enum class classify(const char *path) {
    if (strncmp(path, root, root_len) || (path[root_len] && path[root_len] != '/')) return NONE;
    if (strstr(path + root_len, "/wal/prepare")) return SPARE;
    if (strstr(path + root_len, "/wal")) return LOG;
    if (strstr(path + root_len, "/state")) return STATE;
    return OTHER;
}

static int slot_of(uint64_t inode) {
    unsigned at = (inode * 0x9E3779B97F4A7C15ull) >> 48;
    while (inodes[at].inode && inodes[at].inode != inode) at = (at + 1) % INODES_MAX;
    return at;
}

static void watch(int fd) {
    if (!root_len || fd < 0) return;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n <= 0) return;
    path[n] = 0;
    enum class class = classify(path);
    struct stat st;
    if (class == NONE || fstat(fd, &st)) return;
    pthread_mutex_lock(&lock);
    int at = slot_of(st.st_ino);
    inodes[at].inode = st.st_ino;
    inodes[at].class = class;
    pthread_mutex_unlock(&lock);
}

// The class of an open file or directory. Inode numbers of other file systems may be the same: the
// harness keeps data on a file system of which this process opens nothing else to write.
static enum class watched(int fd, struct stat *st) {
    if (!root_len || fd < 0) return NONE;
    int saved = errno;
    enum class class = NONE;
    if (!fstat(fd, st) && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))) {
        pthread_mutex_lock(&lock);
        class = inodes[slot_of(st->st_ino)].class;
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return class;
}

// --- faults ---

static uint64_t draw(void) {
    random_state += 0x9E3779B97F4A7C15ull;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

// Which rule hits this call, if any.
static struct rule *hit(enum operation op, enum class class) {
    struct rule *found = NULL;
    if (!rule_count) return NULL;
    pthread_mutex_lock(&lock);
    if (arm[0] && !syscall(SYS_faccessat, AT_FDCWD, arm, F_OK)) arm[0] = 0;
    if (arm[0]) { pthread_mutex_unlock(&lock); return NULL; }
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if (r->op != op || (r->class != OTHER && r->class != class)) continue;
        r->seen++;
        if (r->seen < r->first || (r->count && r->seen >= r->first + r->count)) continue;
        if (!found) found = r;
        if (!r->told && calls >= 0) { r->told = 1; dprintf(calls, "rule %d\n", i); }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void delay(struct rule *r) {
    pthread_mutex_lock(&lock);
    long ms = r->amount / 10 + draw() % (r->amount - r->amount / 10 + 1);
    pthread_mutex_unlock(&lock);
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

// Sets errno and answers -1 if the rule is an error; answers 1 for a short write, 2 for a dropped call.
static int act(struct rule *r) {
    if (!r) return 0;
    switch (r->what) {
    case EIO_ERROR: errno = EIO; return -1;
    case ENOSPC_ERROR: errno = ENOSPC; return -1;
    case EROFS_ERROR: errno = EROFS; return -1;
    case SHORT: return 1;
    case DROP: return 2;
    case DELAY: delay(r); return 0;
    case KILL: kill(getpid(), SIGKILL); return 0;
    }
    return 0;
}

// --- the undo log; callers hold the lock ---

static void put(struct record *r, const void *bytes) {
    r->magic = MAGIC;
    struct iovec v[2] = {{r, sizeof *r}, {(void *)bytes, r->old_len}};
    size_t all = sizeof *r + r->old_len;
    if (syscall(SYS_writev, undo, v, r->old_len ? 2 : 1) != (long)all) {
        fprintf(stderr, "crash shim: the undo log cannot be written\n");
        _exit(99);
    }
    undo_at += all;
}

static void unseen(uint64_t inode, const char *call) {
    if (undo < 0) return;
    struct record r = {.kind = UNSEEN, .inode = inode, .old_len = strlen(call)};
    put(&r, call);
}

static void log_write(int fd, const struct stat *st, uint64_t offset, uint64_t len) {
    if (undo < 0) return;
    uint64_t size = st->st_size, n = 0;
    char *old = NULL;
    if (offset < size && len) {
        n = len < size - offset ? len : size - offset;
        old = malloc(n);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int in = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0); // fd may be write-only
        if (!old || in < 0 || syscall(SYS_pread64, in, old, n, offset) != (long)n) {
            fprintf(stderr, "crash shim: old content cannot be read\n");
            _exit(99);
        }
        syscall(SYS_close, in);
    }
    struct record r = {.kind = WRITE, .inode = st->st_ino, .offset = offset, .len = len, .old_size = size, .old_len = n};
    put(&r, old);
    free(old);
}

static void log_name(enum kind kind, uint64_t dir, const char *name, uint64_t before, uint64_t now) {
    if (undo < 0) return;
    struct record r = {.kind = kind, .inode = dir, .len = before, .old_size = now, .old_len = strlen(name)};
    put(&r, name);
}

// --- names ---

struct place { char dir[PATH_MAX], name[NAME_MAX + 1]; uint64_t dir_inode, inode; int is_dir; int inside; };

// Where a path leads to, as an absolute directory and a name, and what is there now.
static void locate(int at, const char *path, struct place *p) {
    memset(p, 0, sizeof *p);
    if (!root_len) return;
    char full[2 * PATH_MAX], base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (at == AT_FDCWD) { if (!getcwd(base, sizeof base)) return; }
        else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
            if (n <= 0) return;
            base[n] = 0;
        }
        snprintf(full, sizeof full, "%s/%s", base, path);
    } else snprintf(full, sizeof full, "%s", path);
    size_t len = strlen(full);
    while (len > 1 && full[len - 1] == '/') full[--len] = 0;
    char *slash = strrchr(full, '/');
    if (!slash || strlen(slash + 1) > NAME_MAX) return;
    snprintf(p->name, sizeof p->name, "%s", slash + 1);
    *slash = 0;
    snprintf(p->dir, sizeof p->dir, "%s", full);
    p->inside = classify(p->dir) != NONE;
    struct stat st;
    if (!p->inside || stat(p->dir, &st)) { p->inside = 0; return; }
    p->dir_inode = st.st_ino;
    snprintf(full, sizeof full, "%s/%s", p->dir, p->name);
    if (!lstat(full, &st)) { p->inode = st.st_ino; p->is_dir = S_ISDIR(st.st_mode); }
}

// The class of a name, for rules.
static enum class class_of(const struct place *p) {
    char full[2 * PATH_MAX];
    snprintf(full, sizeof full, "%s/%s", p->dir, p->name);
    return classify(full);
}

// Keeps a file that is about to lose its name.
static void bury(const struct place *p) {
    if (undo < 0 || !p->inode || p->is_dir || !graves[0]) return;
    char from[2 * PATH_MAX], to[2 * PATH_MAX];
    snprintf(from, sizeof from, "%s/%s", p->dir, p->name);
    snprintf(to, sizeof to, "%s/%llu", graves, (unsigned long long)p->inode);
    if (syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0) && errno != EEXIST) {
        fprintf(stderr, "crash shim: a deleted file cannot be kept\n");
        _exit(99);
    }
}

// --- the calls ---

static int open_at(int at, const char *path, int flags, mode_t mode) {
    if (!root_len) return syscall(SYS_openat, at, path, flags, mode);
    struct place p;
    locate(at, path, &p);
    if (!p.inside) {
        int fd = syscall(SYS_openat, at, path, flags, mode);
        watch(fd);
        return fd;
    }
    if ((flags & O_ACCMODE) != O_RDONLY && act(hit(OP_OPEN, class_of(&p))) < 0) return -1;
    if ((flags & O_CREAT) && !p.inode && act(hit(OP_NAME, class_of(&p))) < 0) return -1;
    pthread_mutex_lock(&lock);
    if (flags & O_CREAT) locate(at, path, &p);
    if ((flags & O_TRUNC) && p.inode && !p.is_dir) {
        // As a truncation to nothing, so that what was there can come back.
        int old = syscall(SYS_openat, at, path, O_RDONLY | O_CLOEXEC, 0);
        struct stat st;
        if (old >= 0 && !fstat(old, &st)) log_write(old, &st, 0, st.st_size);
        if (old >= 0) syscall(SYS_close, old);
    }
    int fd = syscall(SYS_openat, at, path, flags, mode);
    struct stat st;
    if (fd >= 0 && !fstat(fd, &st)) {
        if (flags & (O_DSYNC | O_DIRECT)) unseen(st.st_ino, "open with O_DSYNC or O_DIRECT");
        if ((flags & O_CREAT) && !p.inode) log_name(SET_NAME, p.dir_inode, p.name, 0, st.st_ino);
    }
    pthread_mutex_unlock(&lock);
    int saved = errno;
    watch(fd);
    errno = saved;
    return fd;
}

#define MODE_OF(flags, mode) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static ssize_t write_at(int fd, const struct iovec *v, int count, off_t offset, int positioned) {
    struct stat st;
    enum class class = watched(fd, &st);
    if (class == NONE || !S_ISREG(st.st_mode))
        return positioned ? syscall(SYS_pwritev, fd, v, count, offset, 0) : syscall(SYS_writev, fd, v, count);
    struct iovec one;
    switch (act(hit(OP_WRITE, class))) {
    case -1: return -1;
    case 1: // As many bytes as a disk that fills up might take, at least one.
        if (count && v[0].iov_len > 1) { one = v[0]; one.iov_len = 1 + draw() % (one.iov_len - 1); v = &one; count = 1; }
        break;
    }
    uint64_t len = 0;
    for (int i = 0; i < count; i++) len += v[i].iov_len;
    pthread_mutex_lock(&lock);
    fstat(fd, &st);
    if (!positioned) offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
    log_write(fd, &st, offset, len);
    ssize_t n = positioned ? syscall(SYS_pwritev, fd, v, count, offset, 0) : syscall(SYS_writev, fd, v, count);
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return n;
}

ssize_t write(int fd, const void *b, size_t n) { struct iovec v = {(void *)b, n}; return write_at(fd, &v, 1, 0, 0); }
ssize_t writev(int fd, const struct iovec *v, int c) { return write_at(fd, v, c, 0, 0); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { struct iovec v = {(void *)b, n}; return write_at(fd, &v, 1, o, 1); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return pwrite(fd, b, n, o); }
ssize_t pwritev(int fd, const struct iovec *v, int c, off_t o) { return write_at(fd, v, c, o, 1); }
ssize_t pwritev64(int fd, const struct iovec *v, int c, off64_t o) { return write_at(fd, v, c, o, 1); }
ssize_t pwritev2(int fd, const struct iovec *v, int c, off_t o, int flags) { (void)flags; return write_at(fd, v, c, o, o != -1); }
ssize_t pwritev64v2(int fd, const struct iovec *v, int c, off64_t o, int flags) { return pwritev2(fd, v, c, o, flags); }

int ftruncate(int fd, off_t size) {
    struct stat st;
    enum class class = watched(fd, &st);
    if (class == NONE) return syscall(SYS_ftruncate, fd, size);
    if (act(hit(OP_WRITE, class)) < 0) return -1;
    pthread_mutex_lock(&lock);
    fstat(fd, &st);
    log_write(fd, &st, size, size < st.st_size ? st.st_size - size : 0);
    int r = syscall(SYS_ftruncate, fd, size), saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int fallocate(int fd, int mode, off_t offset, off_t len) {
    struct stat st;
    enum class class = watched(fd, &st);
    if (class == NONE) return syscall(SYS_fallocate, fd, mode, offset, len);
    if (act(hit(OP_WRITE, class)) < 0) return -1;
    pthread_mutex_lock(&lock);
    fstat(fd, &st);
    log_write(fd, &st, offset, mode ? len : 0); // Without a mode it only makes the file longer.
    int r = syscall(SYS_fallocate, fd, mode, offset, len), saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t len) { return fallocate(fd, mode, offset, len); }
int posix_fallocate(int fd, off_t offset, off_t len) { return fallocate(fd, 0, offset, len) ? errno : 0; }
int posix_fallocate64(int fd, off64_t offset, off64_t len) { return posix_fallocate(fd, offset, len); }

static int flush(int fd, long call) {
    struct stat st;
    enum class class = watched(fd, &st);
    if (class == NONE) return syscall(call, fd);
    switch (act(hit(OP_SYNC, class))) {
    case -1: return -1;
    case 2: return 0;
    }
    pthread_mutex_lock(&lock);
    uint64_t began = undo_at;
    pthread_mutex_unlock(&lock);
    int r = syscall(call, fd), saved = errno;
    if (!r && undo >= 0) {
        pthread_mutex_lock(&lock);
        struct record rec = {.kind = SYNC, .inode = st.st_ino, .offset = began};
        put(&rec, NULL);
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return r;
}
int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }
// It starts writing but makes nothing durable: the device's cache is not flushed.
int sync_file_range(int fd, off64_t o, off64_t n, unsigned f) { return syscall(SYS_sync_file_range, fd, o, n, f); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    struct place a, b;
    locate(to_at, to, &b);
    if (b.inside && act(hit(OP_NAME, class_of(&b))) < 0) return -1;
    pthread_mutex_lock(&lock);
    locate(from_at, from, &a);
    locate(to_at, to, &b);
    if (b.inside) bury(&b);
    int r = syscall(SYS_renameat2, from_at, from, to_at, to, flags), saved = errno;
    if (!r && b.inside && inodes[slot_of(a.inode)].inode == a.inode) inodes[slot_of(a.inode)].class = class_of(&b);
    if (!r && (a.inside || b.inside)) {
        if (a.inside && b.inside && a.dir_inode == b.dir_inode) {
            // One step, so that never a half of it survives: both names, a zero between.
            char names[2 * NAME_MAX + 2];
            int n = snprintf(names, sizeof names, "%s%c%s", a.name, 0, b.name);
            struct record rec = {.kind = RENAME, .inode = a.dir_inode, .len = b.inode, .old_size = a.inode, .old_len = n};
            if (undo >= 0) put(&rec, names);
        } else {
            if (b.inside) log_name(SET_NAME, b.dir_inode, b.name, b.inode, a.inode);
            if (a.inside) log_name(DROP_NAME, a.dir_inode, a.name, a.inode, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    struct place p;
    locate(at, path, &p);
    if (p.inside && act(hit(OP_NAME, class_of(&p))) < 0) return -1;
    pthread_mutex_lock(&lock);
    locate(at, path, &p);
    if (p.inside) bury(&p);
    int r = syscall(SYS_unlinkat, at, path, flags), saved = errno;
    // A directory that is removed is gone: it cannot be kept by a link.
    if (!r && p.inside && !p.is_dir) log_name(DROP_NAME, p.dir_inode, p.name, p.inode, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    struct place p;
    locate(at, path, &p);
    if (p.inside && act(hit(OP_NAME, class_of(&p))) < 0) return -1;
    pthread_mutex_lock(&lock);
    locate(at, path, &p);
    int r = syscall(SYS_mkdirat, at, path, mode), saved = errno;
    struct stat st;
    if (!r && p.inside && !fstatat(at, path, &st, 0)) log_name(SET_NAME, p.dir_inode, p.name, 0, st.st_ino);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    pthread_mutex_lock(&lock);
    struct place a, b;
    locate(from_at, from, &a);
    locate(to_at, to, &b);
    int r = syscall(SYS_linkat, from_at, from, to_at, to, flags), saved = errno;
    if (!r && b.inside) log_name(SET_NAME, b.dir_inode, b.name, 0, a.inode);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

// What is not modelled is reported rather than passed over: the harness refuses such a run.
static void note(int fd, const char *call) {
    struct stat st;
    if (watched(fd, &st) == NONE) return;
    pthread_mutex_lock(&lock);
    unseen(st.st_ino, call);
    pthread_mutex_unlock(&lock);
}
void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset) {
    if (root_len && fd >= 0 && (flags & MAP_SHARED) && (prot & PROT_WRITE)) note(fd, "mmap, shared and writable");
    return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}
void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset) { return mmap(addr, len, prot, flags, fd, offset); }
int msync(void *addr, size_t len, int flags) { return syscall(SYS_msync, addr, len, flags); }
ssize_t copy_file_range(int in, off64_t *io, int out, off64_t *oo, size_t n, unsigned f) {
    note(out, "copy_file_range");
    return syscall(SYS_copy_file_range, in, io, out, oo, n, f);
}
ssize_t sendfile(int out, int in, off_t *o, size_t n) { note(out, "sendfile"); return syscall(SYS_sendfile, out, in, o, n); }
ssize_t sendfile64(int out, int in, off64_t *o, size_t n) { return sendfile(out, in, o, n); }
int syncfs(int fd) { note(fd, "syncfs"); return syscall(SYS_syncfs, fd); }
