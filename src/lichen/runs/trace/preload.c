/* Stand between a program and its C library, and write down which files, programs, variables and peers it asks for.
 *
 * Rules upheld:
 *   - The program notices nothing: every call goes on to the next definition, results and errno are untouched.
 *   - No allocation, no locks, no stdio. Records go by atomic claims into one shared mapping that fork, vfork and threads
 *     inherit and exec maps again, so nothing is lost to SIGKILL or _exit, and no descriptor stays open.
 *   - Space is allocated with fallocate before it is touched: a full disk ends the log, never the program.
 *   - Each (kind, flags, path) is written about once per run, by a lock-free table of hashes in the same mapping; what stands in
 *     the table is committed.
 *   - What a call finds is written before the program gets its answer, what it changes before it is changed (a temporary file,
 *     whose name is not known before, while it is empty). So a record that is not committed belongs to a process that was
 *     killed before it could do anything with what the record would have said.
 *
 * The layout is read by preload_log.py; change both together. Calls made by the Python interpreter's own code are left to
 * the agent where the agent knows more: it announces itself by access(MAGIC), whose return address says which object that is.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <netinet/in.h>
#include <mqueue.h>
#include <pthread.h>
#include <arpa/inet.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(__LP64__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "only 64-bit x86 and ARM are known to work"
#endif

#define EXPORT __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)
#define MAGIC "/.lichen-agent-present"
#define MAGIC_DESCRIPTOR 0x4c494348 /* "LICH"; the agent's records are written to it */
#define LOG_NAME "preload.log"

/* Shared layout. */
#define HEADER_BYTES 4096u
#define TABLE_SLOTS (1u << 17)
#define DATA_OFFSET (HEADER_BYTES + TABLE_SLOTS * 8u)
#define MAP_BYTES (128ul << 20)
#define STEP_BYTES (4ul << 20)
#define RECORD_PATH_MAX 4000u
#define ARGUMENTS_MAX 30000u

struct header {
    uint64_t magic;               /* "LICHPRE1" */
    _Atomic uint64_t used;        /* bytes of data claimed */
    _Atomic uint64_t allocated;   /* bytes of data that may be touched */
    _Atomic uint32_t failed;      /* 1: records were dropped */
};

struct record {
    _Atomic uint32_t size;        /* of the whole record, multiple of 8; written first, and that claims the place */
    uint8_t kind, type, flags, core;
    uint32_t pid;                 /* 0 in records of opens, where nobody asks */
    uint32_t path_bytes;
    int64_t time_ns;
    uint64_t dev, ino;
    int64_t size_bytes, mtime_ns, ctime_ns;
    uint32_t extra_bytes;
    _Atomic uint32_t committed;   /* 1 once everything else is there */
    char text[];
};

enum { ABSENT = 0, UNKNOWN = 15 };
enum { READ_ONLY = 0, WRITE_ONLY = 1, READ_WRITE = 2, CREATE = 4, TRUNCATE = 8, APPEND = 16, EXCLUSIVE = 32 };
enum { LOOK_TYPE = 1, LOOK_STATUS = 2, LOOK_LINK = 5 };

static struct header *head;
static _Atomic uint64_t *table;
static char *data;
static char directory[1024], library[1024], agent[1024], loader[256];
static uintptr_t core_low, core_high;  /* the Python interpreter's own code, once the agent has announced itself */
static _Atomic int stdin_noted, finished;
static _Atomic long owner;             /* process this memory belongs to; a vfork child only borrows it */

/* The next definition of every function, found once. */
#define REAL(name) ((__typeof__(&name))real_##name())
#define NEXT(name)                                              \
    static void *real_##name(void);                             \
    __attribute__((constructor(101))) static void find_##name(void) { real_##name(); } \
    static void *real_##name(void) {                            \
        static _Atomic(void *) found;                           \
        void *function = atomic_load_explicit(&found, memory_order_relaxed); \
        if (!function) {                                        \
            function = dlsym(RTLD_NEXT, #name);                 \
            atomic_store_explicit(&found, function, memory_order_relaxed); \
        }                                                       \
        return function;                                        \
    }
NEXT(syscall)
#define SYS(...) (REAL(syscall)(__VA_ARGS__))

static int in_core(const void *caller) {
    return (uintptr_t)caller >= core_low && (uintptr_t)caller < core_high;
}

static int has_prefix(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int has_suffix(const char *text, const char *suffix) {
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && memcmp(text + length - tail, suffix, tail) == 0;
}

/* System files are described by versions; leaving them out here keeps the log short. */
static int is_boring(const char *path) {
    static const char *const trees[] = {"/usr/lib/", "/usr/lib64/", "/usr/bin/", "/usr/sbin/", "/usr/include/",
        "/usr/share/locale/", "/usr/share/zoneinfo/", "/usr/share/perl/", "/usr/share/perl5/", "/usr/share/fonts/",
        "/lib/", "/lib64/", "/bin/", "/sbin/", "/proc/", "/sys/", "/dev/null", "/dev/urandom", "/dev/random",
        "/dev/pts/", "/dev/nvidia", NULL};
    for (int i = 0; trees[i]; i++)
        if (has_prefix(path, trees[i]))
            return strcmp(path, "/proc/self/fd/0") != 0 && !(has_prefix(path, "/proc/") && has_suffix(path, "/environ"));
    return directory[0] && has_prefix(path, directory) && path[strlen(directory)] == '/';
}

/* Each step can be undone, so texts that differ in one place never meet. */
static uint64_t mixed(uint64_t hash, uint64_t piece) {
    hash = (hash ^ piece) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

/* Name a combination by a hash that is never zero. */
static uint64_t mark_of(uint8_t kind, uint8_t flags, uint8_t variant, const char *path) {
    size_t bytes = strlen(path);
    uint64_t hash = mixed(1469598103934665603ull, (uint64_t)kind << 48 | (uint64_t)flags << 40 | (uint64_t)variant << 32 | bytes);
    for (; bytes >= 8; path += 8, bytes -= 8) {
        uint64_t piece;
        memcpy(&piece, path, 8);
        hash = mixed(hash, piece);
    }
    uint64_t rest = 0;
    memcpy(&rest, path, bytes);
    hash = mixed(hash, rest);
    return hash ? hash : 1;
}

#define PROBES 16

static uint32_t slot_of(uint64_t mark, int probe) {
    return ((uint32_t)(mark >> 20) + (uint32_t)probe) & (TABLE_SLOTS - 1);
}

/* 1 when a record of this combination was committed by any process of this run. */
static int is_known(uint64_t mark) {
    for (int i = 0; i < PROBES; i++) {
        uint64_t there = atomic_load_explicit(&table[slot_of(mark, i)], memory_order_relaxed);
        if (there == mark)
            return 1;
        if (!there)
            return 0;
    }
    return 0; /* the table is full here: rather twice than not at all */
}

/* Say that its record is committed. Never before it is: another process would leave its own out, and this one may be killed. */
static void remember(uint64_t mark) {
    for (int i = 0; i < PROBES; i++) {
        uint64_t there = 0;
        if (atomic_compare_exchange_strong(&table[slot_of(mark, i)], &there, mark) || there == mark)
            return;
    }
}

/* Make sure that data up to `end` may be touched. */
static int extend(uint64_t end) {
    while (atomic_load(&head->allocated) < end) {
        uint64_t old = atomic_load(&head->allocated), target = old;
        while (target < end)
            target += STEP_BYTES;
        if (DATA_OFFSET + target > MAP_BYTES)
            return 0;
        char path[1100];
        snprintf(path, sizeof path, "%s/" LOG_NAME, directory);
        long descriptor = SYS(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (descriptor < 0)
            return 0;
        long failure = SYS(SYS_fallocate, (int)descriptor, 0, (off_t)(DATA_OFFSET + old), (off_t)(target - old));
        SYS(SYS_close, (int)descriptor);
        if (failure)
            return 0;
        uint64_t seen = old;
        while (seen < target && !atomic_compare_exchange_weak(&head->allocated, &seen, target))
            ;
    }
    return 1;
}

/* Claim room behind the last record. The claim is the size in a place that was zero; whoever comes by moves the end on. So a
 * process killed anywhere in here leaves at most a record that is not committed, and never one that cannot be stepped over. */
static struct record *claim(size_t size) {
    for (;;) {
        uint64_t end = atomic_load(&head->used);
        if (!extend(end + size))
            return NULL;
        struct record *record = (struct record *)(data + end);
        uint32_t taken = 0;
        int mine = atomic_compare_exchange_strong(&record->size, &taken, (uint32_t)size);
        atomic_compare_exchange_strong(&head->used, &end, end + (mine ? size : taken));
        if (mine)
            return record;
    }
}

static void put(uint8_t kind, uint8_t type, uint8_t flags, uint8_t core, const struct stat *st, const char *path,
                size_t path_bytes, const char *extra, size_t extra_bytes) {
    size_t size = (offsetof(struct record, text) + path_bytes + extra_bytes + 7) & ~(size_t)7;
    struct record *record = claim(size);
    if (!record) {
        atomic_store(&head->failed, 1);
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    record->kind = kind;
    record->type = st ? (uint8_t)(st->st_mode >> 12) : type;
    record->flags = flags;
    record->core = core;
    record->pid = kind == 'O' ? 0 : (uint32_t)SYS(SYS_getpid);
    record->time_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
    if (st) {
        record->dev = st->st_dev;
        record->ino = st->st_ino;
        record->size_bytes = st->st_size;
        record->mtime_ns = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
        record->ctime_ns = st->st_ctim.tv_sec * 1000000000ll + st->st_ctim.tv_nsec;
    }
    record->path_bytes = (uint32_t)path_bytes;
    record->extra_bytes = (uint32_t)extra_bytes;
    memcpy(record->text, path, path_bytes);
    if (extra_bytes)
        memcpy(record->text + path_bytes, extra, extra_bytes);
    atomic_store_explicit(&record->committed, 1, memory_order_release);
}

/* Enter and leave a piece of our own work; the program's errno is kept. */
#define BEGIN { int saved_errno = errno; if (head) {
#define END } errno = saved_errno; }

/* Memory for a rare need; stacks of threads can be small, and allocating is not ours to do. */
static char *borrow(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* A path named from the root: usually in `near`, when long in borrowed memory. */
#define NEAR_BYTES 768
#define FAR_BYTES (2 * PATH_MAX)
struct name {
    char near[NEAR_BYTES], *far;
    const char *text; /* NULL when it cannot be named or is boring */
};

static void forget(struct name *name) {
    if (name->far)
        munmap(name->far, FAR_BYTES);
}

static long base_of(int dirfd, char *into, size_t room) {
    if (dirfd == AT_FDCWD)
        return SYS(SYS_getcwd, into, room) - 1;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    long length = SYS(SYS_readlinkat, AT_FDCWD, link, into, room);
    return (size_t)length == room ? -1 : length;
}

/* Bytes of `path` that mean something only to a process, `/proc/self/cwd` of `/proc/self/cwd/x`; 0 when it has no such part. */
static size_t own_part(const char *path) {
    const char *at = path;
    if (has_prefix(path, "/dev/fd/"))
        at = path + 5;
    else if (has_prefix(path, "/proc/") && (at = strchr(path + 6, '/'))) {
        at++;
        if (has_prefix(at, "task/") && (at = strchr(at + 5, '/')))
            at++;
    }
    if (!at || at == path)
        return 0;
    if (has_prefix(at, "cwd") && (!at[3] || at[3] == '/'))
        return (size_t)(at + 3 - path);
    if (has_prefix(at, "root") && (!at[4] || at[4] == '/'))
        return (size_t)(at + 4 - path);
    if (!has_prefix(at, "fd/"))
        return 0;
    const char *end = strchr(at + 3, '/');
    return end && end[1] ? (size_t)(end - path) : 0;
}

static long base_at(int dirfd, const char *own, char *into, size_t room) {
    if (!*own)
        return base_of(dirfd, into, room);
    long length = SYS(SYS_readlinkat, AT_FDCWD, own, into, room);
    return (size_t)length == room ? -1 : length;
}

static void name_at(int dirfd, const char *path, struct name *name) {
    char own[96] = "";
    name->far = NULL;
    name->text = NULL;
    if (!path || !*path)
        return;
    if (path[0] == '/') {
        size_t part = own_part(path);
        if (!part || part >= sizeof own) {
            name->text = part || !is_boring(path) ? path : NULL;
            return;
        }
        memcpy(own, path, part);
        own[part] = 0;
        name->text = path; /* whoever reads it knows that its meaning is lost */
        path += part + (path[part] == '/');
    }
    char *into = name->near;
    size_t room = NEAR_BYTES, tail = strlen(path);
    long length = base_at(dirfd, own, into, room);
    if (length <= 0 || (size_t)length + tail + 2 > room) {
        into = name->far = borrow(FAR_BYTES);
        room = FAR_BYTES;
        length = into ? base_at(dirfd, own, into, room) : -1;
    }
    if (length <= 0 || into[0] != '/' || (size_t)length + tail + 2 > room)
        return;
    if (length == 1)
        length = 0;
    into[length] = '/';
    memcpy(into + length + 1, path, tail + 1);
    name->text = is_boring(into) ? NULL : into;
}

/* The working directory as a thread last found it, for as long as it is not seen to change. It may change where that is not seen:
 * another process renames a directory, a program makes the system call itself. So a name made from it is given only to a file that
 * was opened, together with the state of that file: whoever reads the log finds another state under a wrong name, or none. */
static _Atomic uint32_t departures, is_restless;
static __thread struct { uint32_t departures, bytes; char text[256]; } here __attribute__((tls_model("initial-exec")));

static void depart(void) {
    atomic_fetch_add(&departures, 1);
}

/* From now on look each time: the C library goes from directory to directory by itself. */
static void be_restless(void) {
    atomic_store(&is_restless, 1);
}

/* Name a relative path from the directory kept in mind; 0 when that cannot be done. */
static int name_here(const char *path, struct name *name) {
    uint32_t seen = atomic_load(&departures);
    if (atomic_load_explicit(&is_restless, memory_order_relaxed))
        return 0;
    if (!here.bytes || here.departures != seen) {
        long length = SYS(SYS_getcwd, here.text, sizeof here.text) - 1;
        here.bytes = 0;
        if (length <= 1 || here.text[0] != '/')
            return 0;
        here.bytes = (uint32_t)length;
        here.departures = seen;
    }
    size_t tail = strlen(path);
    if (here.bytes + tail + 2 > NEAR_BYTES)
        return 0;
    memcpy(name->near, here.text, here.bytes);
    name->near[here.bytes] = '/';
    memcpy(name->near + here.bytes + 1, path, tail + 1);
    name->far = NULL;
    name->text = is_boring(name->near) ? NULL : name->near;
    return 1;
}

static void put_path(uint8_t kind, uint8_t type, uint8_t flags, uint8_t core, const struct stat *st, const char *name,
                     const char *extra) {
    size_t length = strlen(name);
    if (length > RECORD_PATH_MAX)
        length = RECORD_PATH_MAX;
    put(kind, type, flags, core, st, name, length, extra, extra ? strlen(extra) : 0);
}

static int state_of(int dirfd, const char *path, struct stat *st, int flags) {
    return SYS(SYS_newfstatat, dirfd, path, st, flags) == 0;
}

static uint8_t pack_flags(int flags) {
    return (uint8_t)((flags & O_ACCMODE) | (flags & O_CREAT ? CREATE : 0) | (flags & O_TRUNC ? TRUNCATE : 0) |
                     (flags & O_APPEND ? APPEND : 0) | (flags & O_EXCL ? EXCLUSIVE : 0));
}

/* Before an open that may change the file: its state as it was. */
static void before_write(int dirfd, const char *path, uint8_t flags, const void *caller) {
    BEGIN
    struct name name;
    name_at(dirfd, path, &name);
    uint64_t mark = name.text ? mark_of('O', flags, 0, name.text) : 0;
    if (mark && !is_known(mark)) {
        struct stat st;
        int there = state_of(AT_FDCWD, name.text, &st, 0);
        put_path('O', ABSENT, flags, in_core(caller), there ? &st : NULL, name.text, NULL);
        remember(mark);
    }
    forget(&name);
    END
}

/* After an open for reading: what was opened, or that it was not there. */
static void after_read(int dirfd, const char *path, int descriptor, int failure, const void *caller) {
    BEGIN
    struct name name;
    struct stat st;
    int is_relative = descriptor >= 0 && dirfd == AT_FDCWD && path && path[0] && path[0] != '/';
    int is_here = is_relative && SYS(SYS_fstat, descriptor, &st) == 0 && name_here(path, &name);
    if (!is_here)
        name_at(dirfd, path, &name);
    uint64_t mark = name.text ? mark_of('O', 0, descriptor >= 0, name.text) : 0;
    if (mark && is_here && !(mark = mixed(mixed(mark, st.st_dev), st.st_ino)))
        mark = 1;
    if (mark && !is_known(mark)) {
        if (is_here)
            put_path('O', UNKNOWN, 0, in_core(caller), &st, name.text, NULL);
        else if (descriptor >= 0)
            put_path('O', UNKNOWN, 0, in_core(caller), SYS(SYS_fstat, descriptor, &st) == 0 ? &st : NULL, name.text, NULL);
        else if (failure == ENOENT || failure == ENOTDIR)
            put_path('O', ABSENT, 0, in_core(caller), NULL, name.text, NULL);
        else
            put_path('O', UNKNOWN, 0, in_core(caller), state_of(AT_FDCWD, name.text, &st, 0) ? &st : NULL, name.text, NULL);
        remember(mark);
    }
    forget(&name);
    END
}

static int may_write(int flags) {
    return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND)) != 0 && (flags & O_TMPFILE) != O_TMPFILE;
}

static int is_module(const char *name) {
    return has_suffix(name, ".py") || has_suffix(name, ".pyc") || has_suffix(name, ".so");
}

/* A look at a path. Of those by Python's own code only the files that are there and are no modules are written: the agent sees
 * what Python code looks for, and the import system looks for much more. */
static void look(int dirfd, const char *path, int result, int failure, uint8_t level, const void *caller) {
    int core = core_high && in_core(caller);
    if ((core && result) || (result && failure != ENOENT && failure != ENOTDIR))
        return;
    BEGIN
    struct name name;
    name_at(dirfd, path, &name);
    uint64_t mark = 0;
    if (name.text && !(core && is_module(name.text)))
        mark = mark_of('S', level, (uint8_t)((result == 0) | core << 1), name.text);
    if (mark && !is_known(mark)) {
        struct stat st;
        int there = result == 0 && state_of(AT_FDCWD, name.text, &st, 0);
        if (!core || (there && S_ISREG(st.st_mode)))
            put_path('S', result == 0 ? UNKNOWN : ABSENT, level, (uint8_t)core, there ? &st : NULL, name.text, NULL);
        remember(mark);
    }
    forget(&name);
    END
}

/* A change of names; never left out, because order and number matter. */
static void change(uint8_t kind, int dirfd, const char *path, int dirfd2, const char *path2) {
    BEGIN
    struct name name, second;
    name_at(dirfd, path, &name);
    name_at(dirfd2, path2, &second);
    if (name.text) {
        struct stat st, other;
        int there = state_of(AT_FDCWD, name.text, &st, AT_SYMLINK_NOFOLLOW);
        if (second.text) { /* what the new name stood for is replaced */
            int taken = state_of(AT_FDCWD, second.text, &other, AT_SYMLINK_NOFOLLOW);
            put_path('O', ABSENT, WRITE_ONLY | CREATE | TRUNCATE, 0, taken ? &other : NULL, second.text, NULL);
        }
        put_path(kind, ABSENT, 0, 0, there ? &st : NULL, name.text, second.text);
    }
    forget(&name);
    forget(&second);
    END
}

static void list(int dirfd, const char *path, const void *caller) {
    if (core_high && in_core(caller))
        return;
    BEGIN
    struct name name;
    name_at(dirfd, path, &name);
    uint64_t mark = name.text ? mark_of('L', 0, 0, name.text) : 0;
    if (mark && !is_known(mark)) {
        struct stat st;
        int there = state_of(AT_FDCWD, name.text, &st, 0);
        put_path('L', ABSENT, 0, 0, there ? &st : NULL, name.text, NULL);
        remember(mark);
    }
    forget(&name);
    END
}

static void note(uint8_t kind, const char *text, size_t bytes) {
    BEGIN
    put(kind, UNKNOWN, 0, 0, NULL, text, bytes, NULL, 0);
    END
}

static void note_stdin(void) {
    if (atomic_exchange(&stdin_noted, 1))
        return;
    BEGIN
    struct stat st;
    if (SYS(SYS_fstat, 0, &st) == 0)
        put('R', UNKNOWN, 0, 0, &st, "", 0, NULL, 0);
    END
}

static void address(uint8_t kind, const struct sockaddr *to, socklen_t length) {
    char text[200];
    size_t bytes = 0;
    if (!to || length < sizeof(sa_family_t))
        return;
    if (to->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const void *)to;
        const unsigned char *a = (const void *)&in->sin_addr;
        bytes = (size_t)snprintf(text, sizeof text, "2 %u.%u.%u.%u %u", a[0], a[1], a[2], a[3], ntohs(in->sin_port));
    } else if (to->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in = (const void *)to;
        char host[INET6_ADDRSTRLEN];
        if (inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host))
            bytes = (size_t)snprintf(text, sizeof text, "10 %s %u", host, ntohs(in->sin6_port));
    } else if (to->sa_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
        const struct sockaddr_un *un = (const void *)to;
        size_t room = length - offsetof(struct sockaddr_un, sun_path);
        if (room > sizeof un->sun_path)
            room = sizeof un->sun_path;
        if (un->sun_path[0])
            room = strnlen(un->sun_path, room);
        memcpy(text, "1 ", 2);
        memcpy(text + 2, un->sun_path, room);
        bytes = room + 2;
    } else if (to->sa_family != AF_UNIX && to->sa_family != AF_UNSPEC && to->sa_family != AF_NETLINK) {
        bytes = (size_t)snprintf(text, sizeof text, "%d - 0", to->sa_family);
    }
    if (bytes) {
        char key[201];
        memcpy(key, text, bytes);
        for (size_t i = 0; i < bytes; i++)
            if (!key[i])
                key[i] = '@';
        key[bytes] = 0;
        uint64_t mark = mark_of(kind, 0, 0, key);
        if (head && !is_known(mark)) {
            note(kind, text, bytes);
            remember(mark);
        }
    }
}

#include "preload_process.h"
#include "preload_wrappers.h"
#include "preload_special.h"
