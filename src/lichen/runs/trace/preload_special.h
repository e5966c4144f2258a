/* What is made that is no file, and what changes of a file beside its content. Included by preload.c, after preload_wrappers.h.
 *
 * A run that does either to what was there before, or leaves such a thing, does something that putting files back would not. One
 * that reads such attributes depends on more than content.
 */

/* Of these the interpreter tells nothing. */
#define WRAP_SPECIAL(name, at, parameters, arguments)                \
    NEXT(name)                                                       \
    EXPORT int name parameters {                                     \
        change('Y', at, path, 0, NULL);                              \
        return REAL(name) arguments;                                 \
    }
WRAP_SPECIAL(mkfifo, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
WRAP_SPECIAL(mkfifoat, at, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP_SPECIAL(mknod, AT_FDCWD, (const char *path, mode_t mode, dev_t device), (path, mode, device))
WRAP_SPECIAL(mknodat, at, (int at, const char *path, mode_t mode, dev_t device), (at, path, mode, device))
#define WRAP_MODE(name, at, parameters, arguments)                   \
    NEXT(name)                                                       \
    EXPORT int name parameters {                                     \
        if (!(core_high && in_core(CALLER)) && changes_mode(at, path, mode)) \
            change('Z', at, path, 0, NULL);                          \
        return REAL(name) arguments;                                 \
    }
static int changes_mode(int at, const char *path, mode_t mode) {
    struct stat st;
    return head && path && state_of(at, path, &st, 0) && ((st.st_mode ^ mode) & 07777);
}
WRAP_MODE(chmod, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
WRAP_MODE(fchmodat, at, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags))
#define WRAP_ATTRIBUTE(function)                                     \
    NEXT(function)                                                   \
    EXPORT ssize_t function(const char *path, const char *name, void *into, size_t room) { \
        if (!(core_high && in_core(CALLER)) && name && has_prefix(name, "user.")) \
            change('Z', AT_FDCWD, path, 0, NULL);                    \
        return REAL(function)(path, name, into, room);               \
    }
WRAP_ATTRIBUTE(getxattr)
WRAP_ATTRIBUTE(lgetxattr)
WRAP_CHANGE('Z', chown, AT_FDCWD, path, 0, NULL, (const char *path, uid_t user, gid_t group), (path, user, group))
WRAP_CHANGE('Z', lchown, AT_FDCWD, path, 0, NULL, (const char *path, uid_t user, gid_t group), (path, user, group))
WRAP_CHANGE('Z', fchownat, at, path, 0, NULL, (int at, const char *path, uid_t user, gid_t group, int flags), (at, path, user, group, flags))
WRAP_CHANGE('Z', setxattr, AT_FDCWD, path, 0, NULL, (const char *path, const char *name, const void *value, size_t size, int flags), (path, name, value, size, flags))
WRAP_CHANGE('Z', lsetxattr, AT_FDCWD, path, 0, NULL, (const char *path, const char *name, const void *value, size_t size, int flags), (path, name, value, size, flags))
WRAP_CHANGE('Z', removexattr, AT_FDCWD, path, 0, NULL, (const char *path, const char *name), (path, name))
WRAP_CHANGE('Z', lremovexattr, AT_FDCWD, path, 0, NULL, (const char *path, const char *name), (path, name))
