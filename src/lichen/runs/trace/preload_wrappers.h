/* The functions that are stood between, by subject: open, look, list, change names, start programs, talk, and the rest.
 * Part of preload.c.
 */

/* Open. */

#define OPEN(name, at, path, flags, mode, call)                      \
    const void *caller = CALLER;                                     \
    if (may_write(flags))                                            \
        before_write(at, path, pack_flags(flags), caller);           \
    int descriptor = call;                                           \
    if (!may_write(flags))                                           \
        after_read(at, path, descriptor, errno, caller);             \
    return descriptor;

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list_; va_start(list_, flags); mode = va_arg(list_, mode_t); va_end(list_); }

#define WRAP_OPEN(name)                                              \
    NEXT(name)                                                       \
    EXPORT int name(const char *path, int flags, ...) {              \
        MODE(flags)                                                  \
        OPEN(name, AT_FDCWD, path, flags, mode, REAL(name)(path, flags, mode)) \
    }
#define WRAP_OPENAT(name)                                            \
    NEXT(name)                                                       \
    EXPORT int name(int at, const char *path, int flags, ...) {      \
        MODE(flags)                                                  \
        OPEN(name, at, path, flags, mode, REAL(name)(at, path, flags, mode)) \
    }
WRAP_OPEN(open)
WRAP_OPENAT(openat)
#if defined(__GLIBC__)
WRAP_OPEN(open64)
int __open(const char *, int, ...), __open64(const char *, int, ...);
WRAP_OPEN(__open)
WRAP_OPEN(__open64)
WRAP_OPENAT(openat64)
int __open_2(const char *, int), __open64_2(const char *, int);
int __openat_2(int, const char *, int), __openat64_2(int, const char *, int);
#define WRAP_OPEN_2(name)                                            \
    NEXT(name)                                                       \
    EXPORT int name(const char *path, int flags) { OPEN(name, AT_FDCWD, path, flags, 0, REAL(name)(path, flags)) }
#define WRAP_OPENAT_2(name)                                          \
    NEXT(name)                                                       \
    EXPORT int name(int at, const char *path, int flags) { OPEN(name, at, path, flags, 0, REAL(name)(at, path, flags)) }
WRAP_OPEN_2(__open_2)
WRAP_OPEN_2(__open64_2)
WRAP_OPENAT_2(__openat_2)
WRAP_OPENAT_2(__openat64_2)
#endif

#define WRAP_CREAT(name)                                             \
    NEXT(name)                                                       \
    EXPORT int name(const char *path, mode_t mode) {                 \
        before_write(AT_FDCWD, path, WRITE_ONLY | CREATE | TRUNCATE, CALLER); \
        return REAL(name)(path, mode);                               \
    }
WRAP_CREAT(creat)
#if defined(__GLIBC__)
WRAP_CREAT(creat64)
#endif

static int mode_flags(const char *mode) {
    int plus = mode && strchr(mode, '+') != NULL, first = mode ? mode[0] : 'r';
    int flags = plus ? O_RDWR : first == 'r' ? O_RDONLY : O_WRONLY;
    if (first == 'w')
        flags |= O_CREAT | O_TRUNC;
    if (first == 'a')
        flags |= O_CREAT | O_APPEND;
    return flags;
}

#define WRAP_FOPEN(name)                                             \
    NEXT(name)                                                       \
    EXPORT FILE *name(const char *path, const char *mode) {          \
        int flags = mode_flags(mode);                                \
        if (may_write(flags))                                        \
            before_write(AT_FDCWD, path, pack_flags(flags), CALLER); \
        FILE *file = REAL(name)(path, mode);                         \
        if (!may_write(flags))                                       \
            after_read(AT_FDCWD, path, file ? fileno(file) : -1, errno, CALLER); \
        return file;                                                 \
    }
#define WRAP_FREOPEN(name)                                           \
    NEXT(name)                                                       \
    EXPORT FILE *name(const char *path, const char *mode, FILE *old) { \
        int flags = mode_flags(mode);                                \
        if (path && may_write(flags))                                \
            before_write(AT_FDCWD, path, pack_flags(flags), CALLER); \
        FILE *file = REAL(name)(path, mode, old);                    \
        if (path && !may_write(flags))                               \
            after_read(AT_FDCWD, path, file ? fileno(file) : -1, errno, CALLER); \
        return file;                                                 \
    }
WRAP_FOPEN(fopen)
WRAP_FREOPEN(freopen)
#if defined(__GLIBC__)
WRAP_FOPEN(fopen64)
FILE *_IO_fopen(const char *, const char *);
WRAP_FOPEN(_IO_fopen)
WRAP_FREOPEN(freopen64)
#endif

static int made_temporary(char *path, int descriptor) {
    if (descriptor >= 0) {
        BEGIN
        struct name name;
        name_at(AT_FDCWD, path, &name);
        if (name.text)
            put_path('O', ABSENT, READ_WRITE | CREATE | EXCLUSIVE, 0, NULL, name.text, NULL);
        forget(&name);
        END
    }
    return descriptor;
}
#define WRAP_TEMPORARY(name, parameters, arguments)                  \
    NEXT(name)                                                       \
    EXPORT int name parameters { return made_temporary(path, REAL(name) arguments); }
WRAP_TEMPORARY(mkstemp, (char *path), (path))
WRAP_TEMPORARY(mkostemp, (char *path, int flags), (path, flags))
WRAP_TEMPORARY(mkstemps, (char *path, int suffix), (path, suffix))
WRAP_TEMPORARY(mkostemps, (char *path, int suffix, int flags), (path, suffix, flags))
#if defined(__GLIBC__)
WRAP_TEMPORARY(mkstemp64, (char *path), (path))
WRAP_TEMPORARY(mkostemp64, (char *path, int flags), (path, flags))
WRAP_TEMPORARY(mkstemps64, (char *path, int suffix), (path, suffix))
WRAP_TEMPORARY(mkostemps64, (char *path, int suffix, int flags), (path, suffix, flags))
#endif
NEXT(mkdtemp)
EXPORT char *mkdtemp(char *path) {
    char *made = REAL(mkdtemp)(path);
    if (made) {
        BEGIN
        struct name name;
        name_at(AT_FDCWD, made, &name);
        if (name.text)
            put_path('C', ABSENT, 0, 0, NULL, name.text, NULL);
        forget(&name);
        END
    }
    return made;
}

/* Shared memory is a file whose path the C library makes of its name; Python's own calls have no audit event. */
static const char *shared_memory_path(const char *name, char *into, size_t room) {
    while (*name == '/')
        name++;
    snprintf(into, room, "/dev/shm/%s", name);
    return into;
}
NEXT(shm_open)
EXPORT int shm_open(const char *name, int flags, mode_t mode) {
    char path[NAME_MAX + 16];
    shared_memory_path(name, path, sizeof path);
    if (may_write(flags))
        before_write(AT_FDCWD, path, pack_flags(flags), NULL);
    int descriptor = REAL(shm_open)(name, flags, mode);
    if (!may_write(flags))
        after_read(AT_FDCWD, path, descriptor, errno, NULL);
    return descriptor;
}
NEXT(shm_unlink)
EXPORT int shm_unlink(const char *name) {
    char path[NAME_MAX + 16];
    change('D', AT_FDCWD, shared_memory_path(name, path, sizeof path), 0, NULL);
    return REAL(shm_unlink)(name);
}

/* Look. */

#define WRAP_LOOK(name, at, level, parameters, arguments)            \
    NEXT(name)                                                       \
    EXPORT int name parameters {                                     \
        int result = REAL(name) arguments;                           \
        look(at, path, result, errno, level, CALLER);                \
        return result;                                               \
    }
WRAP_LOOK(stat, AT_FDCWD, LOOK_STATUS, (const char *path, struct stat *st), (path, st))
WRAP_LOOK(lstat, AT_FDCWD, LOOK_STATUS, (const char *path, struct stat *st), (path, st))
WRAP_LOOK(fstatat, at, LOOK_STATUS, (int at, const char *path, struct stat *st, int flags), (at, path, st, flags))
WRAP_LOOK(statx, at, LOOK_STATUS, (int at, const char *path, int flags, unsigned mask, struct statx *st), (at, path, flags, mask, st))
WRAP_LOOK(faccessat, at, LOOK_TYPE, (int at, const char *path, int mode, int flags), (at, path, mode, flags))
WRAP_LOOK(euidaccess, AT_FDCWD, LOOK_TYPE, (const char *path, int mode), (path, mode))
WRAP_LOOK(eaccess, AT_FDCWD, LOOK_TYPE, (const char *path, int mode), (path, mode))
#if defined(__GLIBC__)
WRAP_LOOK(stat64, AT_FDCWD, LOOK_STATUS, (const char *path, struct stat64 *st), (path, st))
WRAP_LOOK(lstat64, AT_FDCWD, LOOK_STATUS, (const char *path, struct stat64 *st), (path, st))
WRAP_LOOK(fstatat64, at, LOOK_STATUS, (int at, const char *path, struct stat64 *st, int flags), (at, path, st, flags))
int __xstat(int, const char *, struct stat *), __lxstat(int, const char *, struct stat *);
int __xstat64(int, const char *, struct stat64 *), __lxstat64(int, const char *, struct stat64 *);
int __fxstatat(int, int, const char *, struct stat *, int), __fxstatat64(int, int, const char *, struct stat64 *, int);
WRAP_LOOK(__xstat, AT_FDCWD, LOOK_STATUS, (int version, const char *path, struct stat *st), (version, path, st))
WRAP_LOOK(__lxstat, AT_FDCWD, LOOK_STATUS, (int version, const char *path, struct stat *st), (version, path, st))
WRAP_LOOK(__xstat64, AT_FDCWD, LOOK_STATUS, (int version, const char *path, struct stat64 *st), (version, path, st))
WRAP_LOOK(__lxstat64, AT_FDCWD, LOOK_STATUS, (int version, const char *path, struct stat64 *st), (version, path, st))
WRAP_LOOK(__fxstatat, at, LOOK_STATUS, (int version, int at, const char *path, struct stat *st, int flags), (version, at, path, st, flags))
WRAP_LOOK(__fxstatat64, at, LOOK_STATUS, (int version, int at, const char *path, struct stat64 *st, int flags), (version, at, path, st, flags))
#endif
NEXT(access)
EXPORT int access(const char *path, int mode) {
    if (head && path && strcmp(path, MAGIC) == 0) {
        announce_agent(CALLER);
        return 0;
    }
    int result = REAL(access)(path, mode);
    look(AT_FDCWD, path, result, errno, LOOK_TYPE, CALLER);
    return result;
}
NEXT(readlink)
EXPORT ssize_t readlink(const char *path, char *into, size_t room) {
    ssize_t length = REAL(readlink)(path, into, room);
    if (!in_core(CALLER))
        look(AT_FDCWD, path, length < 0 ? -1 : 0, errno, LOOK_LINK, CALLER);
    return length;
}
NEXT(readlinkat)
EXPORT ssize_t readlinkat(int at, const char *path, char *into, size_t room) {
    ssize_t length = REAL(readlinkat)(at, path, into, room);
    if (!in_core(CALLER))
        look(at, path, length < 0 ? -1 : 0, errno, LOOK_LINK, CALLER);
    return length;
}
NEXT(realpath)
EXPORT char *realpath(const char *path, char *into) {
    char *resolved = REAL(realpath)(path, into);
    if (path && !in_core(CALLER))
        look(AT_FDCWD, path, resolved ? 0 : -1, errno, LOOK_LINK, CALLER);
    return resolved;
}

/* Going to a directory: which it is depends on the links on the way. Python's own call counts as any other. */
static void go_to(const char *path) {
    BEGIN
    struct stat st;
    look(AT_FDCWD, path, path && state_of(AT_FDCWD, path, &st, 0) ? 0 : -1, ENOENT, LOOK_LINK, NULL);
    END
}
NEXT(chdir)
EXPORT int chdir(const char *path) {
    go_to(path);
    int result = REAL(chdir)(path);
    depart();
    return result;
}
NEXT(fchdir)
EXPORT int fchdir(int descriptor) {
    int result = REAL(fchdir)(descriptor);
    depart();
    return result;
}

/* List. */

#define WRAP_LIST(result_type, name, at, parameters, arguments)      \
    NEXT(name)                                                       \
    EXPORT result_type name parameters {                             \
        list(at, path, CALLER);                                      \
        return REAL(name) arguments;                                 \
    }
typedef int (*filter_type)(const struct dirent *);
typedef int (*compare_type)(const struct dirent **, const struct dirent **);
WRAP_LIST(DIR *, opendir, AT_FDCWD, (const char *path), (path))
WRAP_LIST(int, scandir, AT_FDCWD, (const char *path, struct dirent ***names, filter_type filter, compare_type compare), (path, names, filter, compare))
#if defined(__GLIBC__)
typedef int (*filter64_type)(const struct dirent64 *);
typedef int (*compare64_type)(const struct dirent64 **, const struct dirent64 **);
WRAP_LIST(int, scandir64, AT_FDCWD, (const char *path, struct dirent64 ***names, filter64_type filter, compare64_type compare), (path, names, filter, compare))
WRAP_LIST(int, scandirat, at, (int at, const char *path, struct dirent ***names, filter_type filter, compare_type compare), (at, path, names, filter, compare))
#endif
NEXT(fdopendir)
EXPORT DIR *fdopendir(int descriptor) {
    const void *caller = CALLER;
    DIR *opened = REAL(fdopendir)(descriptor);
    if (opened)
        list(descriptor, ".", caller);
    return opened;
}
/* Library functions that walk directories inside the C library, where no call can be seen: written as 'G', a pattern or root. */
static void walk(const char *pattern) {
    BEGIN
    struct name name;
    name_at(AT_FDCWD, pattern, &name);
    uint64_t mark = name.text ? mark_of('G', 0, 0, name.text) : 0;
    if (mark && !is_known(mark)) {
        put_path('G', UNKNOWN, 0, 0, NULL, name.text, NULL);
        remember(mark);
    }
    forget(&name);
    END
}
int glob(const char *, int, int (*)(const char *, int), void *), glob64(const char *, int, int (*)(const char *, int), void *);
NEXT(glob)
EXPORT int glob(const char *pattern, int flags, int (*error)(const char *, int), void *found) {
    walk(pattern);
    return REAL(glob)(pattern, flags, error, found);
}
NEXT(glob64)
EXPORT int glob64(const char *pattern, int flags, int (*error)(const char *, int), void *found) {
    walk(pattern);
    return REAL(glob64)(pattern, flags, error, found);
}
int ftw(const char *, void *, int), ftw64(const char *, void *, int);
int nftw(const char *, void *, int, int), nftw64(const char *, void *, int, int);
#define WRAP_WALK(name, parameters, arguments) \
    NEXT(name)                                 \
    EXPORT int name parameters { walk(path); be_restless(); return REAL(name) arguments; }
WRAP_WALK(ftw, (const char *path, void *visit, int depth_), (path, visit, depth_))
WRAP_WALK(ftw64, (const char *path, void *visit, int depth_), (path, visit, depth_))
WRAP_WALK(nftw, (const char *path, void *visit, int depth_, int flags), (path, visit, depth_, flags))
WRAP_WALK(nftw64, (const char *path, void *visit, int depth_, int flags), (path, visit, depth_, flags))
void *fts_open(char *const *, int, void *), *fts64_open(char *const *, int, void *);
#define WRAP_FTS(name)                                                      \
    NEXT(name)                                                              \
    EXPORT void *name(char *const *paths, int options, void *compare) {     \
        for (int i = 0; paths && paths[i]; i++)                             \
            walk(paths[i]);                                                 \
        be_restless();                                                      \
        return REAL(name)(paths, options, compare);                         \
    }
WRAP_FTS(fts_open)
WRAP_FTS(fts64_open)

/* Change names. */

#define WRAP_CHANGE(kind, name, at, path, at2, path2, parameters, arguments) \
    NEXT(name)                                                       \
    EXPORT int name parameters {                                     \
        if (!(core_high && in_core(CALLER)))                         \
            change(kind, at, path, at2, path2);                   \
        int result = REAL(name) arguments;                           \
        if (kind == 'M') /* it may lie above the working directory */ \
            depart();                                                \
        return result;                                               \
    }
WRAP_CHANGE('D', unlink, AT_FDCWD, path, 0, NULL, (const char *path), (path))
WRAP_CHANGE('D', unlinkat, at, path, 0, NULL, (int at, const char *path, int flags), (at, path, flags))
WRAP_CHANGE('D', rmdir, AT_FDCWD, path, 0, NULL, (const char *path), (path))
WRAP_CHANGE('D', remove, AT_FDCWD, path, 0, NULL, (const char *path), (path))
WRAP_CHANGE('C', mkdir, AT_FDCWD, path, 0, NULL, (const char *path, mode_t mode), (path, mode))
WRAP_CHANGE('C', mkdirat, at, path, 0, NULL, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP_CHANGE('M', rename, AT_FDCWD, path, AT_FDCWD, to, (const char *path, const char *to), (path, to))
WRAP_CHANGE('M', renameat, at, path, at2, to, (int at, const char *path, int at2, const char *to), (at, path, at2, to))
WRAP_CHANGE('M', renameat2, at, path, at2, to, (int at, const char *path, int at2, const char *to, unsigned flags), (at, path, at2, to, flags))
WRAP_CHANGE('K', link, AT_FDCWD, path, AT_FDCWD, to, (const char *path, const char *to), (path, to))
WRAP_CHANGE('K', linkat, at, path, at2, to, (int at, const char *path, int at2, const char *to, int flags), (at, path, at2, to, flags))
WRAP_CHANGE('Y', symlink, AT_FDCWD, path, 0, NULL, (const char *to, const char *path), (to, path))
WRAP_CHANGE('Y', symlinkat, at, path, 0, NULL, (const char *to, int at, const char *path), (to, at, path))
#define WRAP_TRUNCATE(name)                                          \
    NEXT(name)                                                       \
    EXPORT int name(const char *path, off_t length) {                \
        before_write(AT_FDCWD, path, WRITE_ONLY, CALLER);            \
        return REAL(name)(path, length);                             \
    }
WRAP_TRUNCATE(truncate)
#if defined(__GLIBC__)
WRAP_TRUNCATE(truncate64)
#endif

/* What cannot be watched: a second C library, and memory and queues that no file stands for. */
static void note_unwatched(const char *what) {
    uint64_t mark = mark_of('U', 0, 0, what);
    if (head && !is_known(mark)) {
        note('U', what, strlen(what));
        remember(mark);
    }
}
#if defined(__GLIBC__)
NEXT(dlmopen)
EXPORT void *dlmopen(Lmid_t space, const char *path, int mode) {
    if (space != LM_ID_BASE)
        note_unwatched("dlmopen");
    return REAL(dlmopen)(space, path, mode);
}
#endif
NEXT(shmget)
EXPORT int shmget(key_t key, size_t size, int flags) {
    if (key != IPC_PRIVATE)
        note_unwatched("shmget");
    return REAL(shmget)(key, size, flags);
}
NEXT(msgget)
EXPORT int msgget(key_t key, int flags) {
    if (key != IPC_PRIVATE)
        note_unwatched("msgget");
    return REAL(msgget)(key, flags);
}
NEXT(mq_open)
EXPORT mqd_t mq_open(const char *name, int flags, ...) {
    va_list list_;
    va_start(list_, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list_, mode_t) : 0;
    struct mq_attr *attributes = flags & O_CREAT ? va_arg(list_, struct mq_attr *) : NULL;
    va_end(list_);
    note_unwatched("mq_open");
    return REAL(mq_open)(name, flags, mode, attributes);
}

/* Start programs. */

NEXT(posix_spawn_file_actions_addopen)
EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *actions, int descriptor, const char *path, int flags,
                                            mode_t mode) {
    if (may_write(flags))
        before_write(AT_FDCWD, path, pack_flags(flags), NULL);
    else
        after_read(AT_FDCWD, path, -1, REAL(access)(path, F_OK) ? ENOENT : EACCES, NULL);
    return REAL(posix_spawn_file_actions_addopen)(actions, descriptor, path, flags, mode);
}

NEXT(execve)
EXPORT int execve(const char *path, char *const arguments[], char *const environment[]) {
    note_exec('X', path, arguments, environment);
    COMPLETED(environment, path)
    int result = REAL(execve)(path, arguments, environment);
    exec_failed();
    return result;
}
NEXT(execvpe)
EXPORT int execvpe(const char *path, char *const arguments[], char *const environment[]) {
    note_exec('X', path, arguments, environment);
    COMPLETED(environment, path)
    int result = REAL(execvpe)(path, arguments, environment);
    exec_failed();
    return result;
}
EXPORT int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }
EXPORT int execvp(const char *path, char *const arguments[]) { return execvpe(path, arguments, environ); }
NEXT(fexecve)
EXPORT int fexecve(int descriptor, char *const arguments[], char *const environment[]) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    note_exec('X', link, arguments, environment);
    COMPLETED(environment, link)
    int result = REAL(fexecve)(descriptor, arguments, environment);
    exec_failed();
    return result;
}
#define COLLECT(first, last)                                         \
    va_list list_;                                                   \
    size_t count_ = 1;                                               \
    va_start(list_, first);                                          \
    while (va_arg(list_, char *))                                    \
        count_++;                                                    \
    va_end(list_);                                                   \
    char *collected[count_ + 1];                                     \
    collected[0] = (char *)first;                                    \
    va_start(list_, first);                                          \
    for (size_t i = 1; i <= count_; i++)                             \
        collected[i] = va_arg(list_, char *);                        \
    last;                                                            \
    va_end(list_);
EXPORT int execl(const char *path, const char *first, ...) {
    COLLECT(first, (void)0)
    return execve(path, collected, environ);
}
EXPORT int execlp(const char *path, const char *first, ...) {
    COLLECT(first, (void)0)
    return execvpe(path, collected, environ);
}
EXPORT int execle(const char *path, const char *first, ...) {
    char *const *environment;
    COLLECT(first, environment = va_arg(list_, char *const *))
    return execve(path, collected, environment);
}

#include <spawn.h>
#define WRAP_SPAWN(name)                                             \
    NEXT(name)                                                       \
    EXPORT int name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, \
                    char *const arguments[], char *const environment[]) { \
        note_exec('P', path, arguments, environment);                \
        COMPLETED(environment, path)                                 \
        int result = REAL(name)(pid, path, actions, attributes, arguments, environment); \
        if (result)                                                  \
            note('p', path, strlen(path));                           \
        return result;                                               \
    }
WRAP_SPAWN(posix_spawn)
WRAP_SPAWN(posix_spawnp)
NEXT(system)
EXPORT int system(const char *command) {
    char *arguments[] = {"sh", "-c", (char *)command, NULL};
    if (command)
        note_exec('P', "/bin/sh", arguments, environ);
    return REAL(system)(command);
}
NEXT(popen)
EXPORT FILE *popen(const char *command, const char *mode) {
    char *arguments[] = {"sh", "-c", (char *)command, NULL};
    note_exec('P', "/bin/sh", arguments, environ);
    return REAL(popen)(command, mode);
}

/* Talk. */

NEXT(connect)
EXPORT int connect(int descriptor, const struct sockaddr *to, socklen_t length) {
    int saved_errno = errno;
    address('N', to, length);
    errno = saved_errno;
    return REAL(connect)(descriptor, to, length);
}
NEXT(sendto)
EXPORT ssize_t sendto(int descriptor, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    int saved_errno = errno;
    if (to)
        address('N', to, length);
    errno = saved_errno;
    return REAL(sendto)(descriptor, bytes, size, flags, to, length);
}
NEXT(sendmsg)
EXPORT ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    int saved_errno = errno;
    if (message && message->msg_name)
        address('N', message->msg_name, message->msg_namelen);
    errno = saved_errno;
    return REAL(sendmsg)(descriptor, message, flags);
}
/* The port of "any free port" is known only afterwards. */
static void note_bound(int descriptor) {
    int saved_errno = errno;
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    if (head && SYS(SYS_getsockname, descriptor, &own, &length) == 0)
        address('B', (struct sockaddr *)&own, length);
    errno = saved_errno;
}
NEXT(bind)
EXPORT int bind(int descriptor, const struct sockaddr *own, socklen_t length) {
    int result = REAL(bind)(descriptor, own, length);
    if (result == 0)
        note_bound(descriptor);
    return result;
}
NEXT(listen)
EXPORT int listen(int descriptor, int backlog) {
    int result = REAL(listen)(descriptor, backlog);
    if (result == 0)
        note_bound(descriptor);
    return result;
}

/* Who comes in is input as well. */
static void note_visitor(const struct sockaddr *from, const socklen_t *length) {
    int saved_errno = errno;
    if (from && length && from->sa_family != AF_UNIX)
        address('V', from, *length);
    errno = saved_errno;
}
NEXT(accept)
EXPORT int accept(int descriptor, struct sockaddr *from, socklen_t *length) {
    int result = REAL(accept)(descriptor, from, length);
    if (result >= 0)
        note_visitor(from, length);
    return result;
}
NEXT(accept4)
EXPORT int accept4(int descriptor, struct sockaddr *from, socklen_t *length, int flags) {
    int result = REAL(accept4)(descriptor, from, length, flags);
    if (result >= 0)
        note_visitor(from, length);
    return result;
}
NEXT(recvfrom)
EXPORT ssize_t recvfrom(int descriptor, void *into, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
    ssize_t result = REAL(recvfrom)(descriptor, into, size, flags, from, length);
    if (result >= 0)
        note_visitor(from, length);
    return result;
}

/* The rest: variables, standard input, direct system calls, the end. */

static void note_variable(const char *name, const void *caller) {
    if (!head || !name || in_core(caller) || has_prefix(name, "LICHEN_"))
        return;
    BEGIN
    uint64_t mark = strlen(name) < 256 ? mark_of('E', 0, 0, name) : 0;
    if (mark && !is_known(mark)) {
        put('E', UNKNOWN, 0, 0, NULL, name, strlen(name), NULL, 0);
        remember(mark);
    }
    END
}
NEXT(getenv)
EXPORT char *getenv(const char *name) {
    note_variable(name, CALLER);
    return REAL(getenv)(name);
}
NEXT(secure_getenv)
EXPORT char *secure_getenv(const char *name) {
    note_variable(name, CALLER);
    return REAL(secure_getenv)(name);
}
NEXT(read)
EXPORT ssize_t read(int descriptor, void *into, size_t room) {
    if (descriptor == 0)
        note_stdin();
    return REAL(read)(descriptor, into, room);
}
NEXT(write)
EXPORT ssize_t write(int descriptor, const void *from, size_t size) {
    if (descriptor == MAGIC_DESCRIPTOR && head) {
        BEGIN
        put('a', UNKNOWN, 0, 0, NULL, from, size, NULL, 0);
        END
        return (ssize_t)size;
    }
    return REAL(write)(descriptor, from, size);
}
EXPORT long syscall(long number, ...) {
    long a[6];
    va_list list_;
    va_start(list_, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list_, long);
    va_end(list_);
#ifdef SYS_io_uring_setup
    if (number == SYS_io_uring_setup)
        note('U', "io_uring", 8);
#endif
    if (number == SYS_openat) {
        if (may_write((int)a[2]))
            before_write((int)a[0], (const char *)a[1], pack_flags((int)a[2]), CALLER);
        long descriptor = SYS(number, a[0], a[1], a[2], a[3]);
        if (!may_write((int)a[2]))
            after_read((int)a[0], (const char *)a[1], (int)descriptor, errno, CALLER);
        return descriptor;
    }
    if (number == SYS_chdir || number == SYS_fchdir)
        be_restless();
    if (number == SYS_execve)
        note_exec('X', (const char *)a[0], (char *const *)a[1], (char *const *)a[2]);
    return SYS(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
NEXT(_exit)
EXPORT void _exit(int status) {
    note_mappings();
    ((void (*)(int))real__exit())(status);
    for (;;)
        SYS(SYS_exit_group, status);
}
EXPORT void _Exit(int status) { _exit(status); }
