/* A slow disk: each look at a file below SLOW_DISK_ROOT sleeps SLOW_DISK_US microseconds first, as on a network mount.
 *
 * Preloaded by slow_disk.py. CPython (DirEntry.stat, os.stat) and find call lstat, fstatat or statx, by one of the names
 * below; all of them end here. Folders are opened and listed at full speed. Children inherit the preload.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int starts_with(const char *path, const char *root) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int is_below_root(int fd, const char *path) {
    const char *root = getenv("SLOW_DISK_ROOT");
    char link[64], folder[PATH_MAX];
    if (root == NULL || path == NULL)
        return 0;
    if (path[0] == '/')
        return starts_with(path, root);
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, folder, sizeof folder - 1);
    if (length < 0)
        return 0;
    folder[length] = '\0';
    return starts_with(folder, root);
}

static void wait_for_disk(int fd, const char *path) {
    const char *delay = getenv("SLOW_DISK_US");
    long microseconds = delay == NULL ? 1000 : atol(delay);
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    if (is_below_root(fd, path))
        nanosleep(&time, NULL);
}

/* Each function sleeps, then calls the next one of its name, which is that of the C library. */
#define SLOW(name, folder, parameters, ...)                         \
    int name parameters {                                           \
        static int(*real) parameters;                               \
        if (real == NULL)                                           \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);      \
        wait_for_disk(folder, path);                                \
        return real(__VA_ARGS__);                                   \
    }

SLOW(stat, AT_FDCWD, (const char *path, struct stat *about), path, about)
SLOW(lstat, AT_FDCWD, (const char *path, struct stat *about), path, about)
SLOW(fstatat, fd, (int fd, const char *path, struct stat *about, int flags), fd, path, about, flags)
SLOW(stat64, AT_FDCWD, (const char *path, struct stat64 *about), path, about)
SLOW(lstat64, AT_FDCWD, (const char *path, struct stat64 *about), path, about)
SLOW(fstatat64, fd, (int fd, const char *path, struct stat64 *about, int flags), fd, path, about, flags)
SLOW(statx, fd, (int fd, const char *path, int flags, unsigned mask, struct statx *about), fd, path, flags, mask, about)
/* Names from before glibc 2.33, which programs built elsewhere still call. */
SLOW(__xstat, AT_FDCWD, (int version, const char *path, struct stat *about), version, path, about)
SLOW(__lxstat, AT_FDCWD, (int version, const char *path, struct stat *about), version, path, about)
SLOW(__fxstatat, fd, (int version, int fd, const char *path, struct stat *about, int flags), version, fd, path, about, flags)
SLOW(__xstat64, AT_FDCWD, (int version, const char *path, struct stat64 *about), version, path, about)
SLOW(__lxstat64, AT_FDCWD, (int version, const char *path, struct stat64 *about), version, path, about)
SLOW(__fxstatat64, fd, (int version, int fd, const char *path, struct stat64 *about, int flags), version, fd, path, about, flags)
