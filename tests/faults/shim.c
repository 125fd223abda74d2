/* Counts the system calls that change files under a folder, and kills the process at one of them or makes it
 * fail. Loaded by LD_PRELOAD; armed by `server.py` in each process that it forks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static atomic_long n_calls;
static long fault_at = -1;
/* The error that the call reports; 0 kills the process before the call, -1 after it. */
static int fault;

void shim_arm(const char *folder, long at, int what) {
    snprintf(root, sizeof root, "%s", folder);
    fault_at = at;
    fault = what;
    atomic_store(&n_calls, 0);
}

long shim_count(void) { return atomic_load(&n_calls); }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    char whole[2 * PATH_MAX];
    if (!root[0]) return 0;
    if (path[0] != '/') {
        char folder[PATH_MAX];
        if (!getcwd(folder, sizeof folder)) return 0;
        snprintf(whole, sizeof whole, "%s/%s", folder, path);
        path = whole;
    }
    return strncmp(path, root, strlen(root)) == 0;
}

static int is_file_below(int file) {
    char link[64], path[PATH_MAX];
    if (!root[0] || file <= 2) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_below(path);
}

/* Whether the call is to fail; kills the process if that is what is due. */
static int due(int counts) {
    if (!counts) return 0;
    long n = atomic_fetch_add(&n_calls, 1) + 1;
    if (n != fault_at) return 0;
    if (fault == 0) die();
    if (fault < 0) return 0;
    errno = fault;
    return 1;
}

/* Kills the process after the call, if that is what is due. */
static void done(int counts) {
    if (counts && fault == -1 && atomic_load(&n_calls) == fault_at) die();
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define CHANGES(result, name, parameters, arguments, counts) \
    result name parameters { \
        REAL(name); \
        int counted = (counts); \
        if (due(counted)) return -1; \
        result returned = real arguments; \
        done(counted); \
        return returned; \
    }

#define OPENS(name, parameters, arguments, below) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
        } \
        int counted = (flags & (O_CREAT | O_TRUNC)) && (below); \
        if (due(counted)) return -1; \
        int returned = real arguments; \
        done(counted); \
        return returned; \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode),
      (at == AT_FDCWD || path[0] == '/') && is_below(path))
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode),
      (at == AT_FDCWD || path[0] == '/') && is_below(path))

CHANGES(ssize_t, write, (int file, const void *data, size_t n), (file, data, n), is_file_below(file))
CHANGES(ssize_t, pwrite64, (int file, const void *data, size_t n, off64_t at), (file, data, n, at),
        is_file_below(file))
CHANGES(ssize_t, writev, (int file, const struct iovec *data, int n), (file, data, n), is_file_below(file))
CHANGES(ssize_t, copy_file_range,
        (int from, off64_t *start, int to, off64_t *at, size_t n, unsigned flags),
        (from, start, to, at, n, flags), is_file_below(to))
CHANGES(int, fsync, (int file), (file), is_file_below(file))
CHANGES(int, fdatasync, (int file), (file), is_file_below(file))
CHANGES(int, ftruncate64, (int file, off64_t n), (file, n), is_file_below(file))
CHANGES(int, ftruncate, (int file, off_t n), (file, n), is_file_below(file))
CHANGES(int, rename, (const char *from, const char *to), (from, to), is_below(to))
CHANGES(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), is_below(to))
CHANGES(int, link, (const char *from, const char *to), (from, to), is_below(to))
CHANGES(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags),
        is_below(to))
CHANGES(int, unlink, (const char *path), (path), is_below(path))
CHANGES(int, unlinkat, (int at, const char *path, int flags), (at, path, flags),
        at != AT_FDCWD || is_below(path))
CHANGES(int, rmdir, (const char *path), (path), is_below(path))
CHANGES(int, mkdir, (const char *path, mode_t mode), (path, mode), is_below(path))
CHANGES(int, utimensat, (int at, const char *path, const struct timespec times[2], int flags),
        (at, path, times, flags), path && is_below(path))
