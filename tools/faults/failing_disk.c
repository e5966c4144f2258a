/* A disk that loses what was not synced, and whose fsync can fail.
 *
 * Preloaded into a process, it keeps beside each file FILE that is written below $FAULTS_UNDER a copy FILE.durable: the bytes that
 * would be found there after a power cut. Writes reach the copy only when an fsync of the file succeeds afterwards.
 *
 * The calls of fsync and fdatasync whose numbers stand in $FAULTS_FAIL ("3,4,9", from 1) fail with EIO. As in Linux, pages that
 * were dirty then count as clean from there on: a later fsync succeeds without having written them, unless they are written
 * once more. This is what makes a retry after a failed fsync dangerous.
 *
 * With $FAULTS_LIE every call succeeds and writes nothing, to see that a loss would be seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE 4096
#define FILES_MAX 64
#define PAGES_MAX (1 << 16)

typedef struct {
    char path[PATH_MAX];
    unsigned char dirty[PAGES_MAX];
} file_t;

static file_t *files[FILES_MAX];
static int file_count, sync_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void find_real(void)
{
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

/* The file behind a descriptor, when it lies where faults are wanted. Shared memory is never synced and does not count. */
static file_t *file_of(int fd)
{
    char link[64], path[PATH_MAX];
    const char *under = getenv("FAULTS_UNDER");
    ssize_t length;
    if (under == NULL)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return NULL;
    path[length] = '\0';
    if (strncmp(path, under, strlen(under)) != 0 || strstr(path, "-shm") || strstr(path, ".durable"))
        return NULL;
    for (int place = 0; place < file_count; place++)
        if (strcmp(files[place]->path, path) == 0)
            return files[place];
    if (file_count == FILES_MAX)
        abort();
    files[file_count] = calloc(1, sizeof(file_t));
    strcpy(files[file_count]->path, path);
    return files[file_count++];
}

static int open_durable(file_t *file)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s.durable", file->path);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void written(int fd, off_t offset, ssize_t size)
{
    file_t *file;
    if (size <= 0)
        return;
    pthread_mutex_lock(&lock);
    if ((file = file_of(fd)) != NULL)
        for (off_t page = offset / PAGE; page <= (offset + size - 1) / PAGE; page++) {
            if (page >= PAGES_MAX)
                abort();
            file->dirty[page] = 1;
        }
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t done = real_pwrite(fd, data, size, offset);
    written(fd, offset, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    off_t before = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real_write(fd, data, size);
    if (before >= 0)
        written(fd, before, done);
    return done;
}

/* A shorter file is shorter on the disk at once: the worst case, since what is gone is gone. */
int ftruncate64(int fd, off_t length)
{
    int done = real_ftruncate(fd, length), durable;
    file_t *file;
    pthread_mutex_lock(&lock);
    if (done == 0 && (file = file_of(fd)) != NULL && (durable = open_durable(file)) >= 0) {
        struct stat status;
        if (fstat(durable, &status) == 0 && status.st_size > length)
            real_ftruncate(durable, length);
        close(durable);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

static int is_to_fail(int number)
{
    const char *listed = getenv("FAULTS_FAIL");
    while (listed != NULL && *listed != '\0') {
        char *end;
        if (strtol(listed, &end, 10) == number)
            return 1;
        listed = *end == ',' ? end + 1 : end;
        if (end == listed && *end != '\0')
            break;
    }
    return 0;
}

static int synced(int fd, int (*real)(int))
{
    file_t *file;
    int done = 0;
    pthread_mutex_lock(&lock);
    file = file_of(fd);
    if (file == NULL) {
        pthread_mutex_unlock(&lock);
        return real(fd);
    }
    if (getenv("FAULTS_LIE") != NULL || is_to_fail(++sync_count)) {
        memset(file->dirty, 0, sizeof file->dirty);
        if (getenv("FAULTS_LIE") == NULL) {
            errno = EIO;
            done = -1;
        }
    } else {
        int durable = open_durable(file);
        char page[PAGE];
        for (off_t number = 0; number < PAGES_MAX; number++)
            if (file->dirty[number]) {
                ssize_t size = pread(fd, page, PAGE, number * PAGE);
                if (size > 0 && real_pwrite(durable, page, size, number * PAGE) != size)
                    abort();
            }
        memset(file->dirty, 0, sizeof file->dirty);
        close(durable);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd)
{
    return synced(fd, real_fsync);
}

int fdatasync(int fd)
{
    return synced(fd, real_fdatasync);
}
