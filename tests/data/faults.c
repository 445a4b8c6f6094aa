/* A failing disk: calls below a root fail, some of them at random or all of them in some folders, as a file says.
 *
 * Preloaded by tests/faults.py, which describes the file and writes it while programs run. CPython opens, lists and
 * looks at files and folders by one of the names below. Children inherit the preload.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* tests/faults.py has the same layout. */
struct orders {
    volatile uint64_t count;      /* of what was made to fail */
    volatile uint32_t per_million; /* how many calls fail; 0 for none */
    volatile uint32_t by_folder;  /* whether all calls in a folder fail, or none */
    volatile uint32_t seed;
    volatile uint32_t n_codes;
    volatile int32_t codes[16];
    char root[PATH_MAX];
};

static struct orders *orders;

__attribute__((constructor)) static void read_orders(void) {
    const char *name = getenv("FAULTS_FILE");
    int fd = name == NULL ? -1 : open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED)
        orders = found;
}

static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint64_t hash(const char *text, size_t length, uint64_t seed) {
    for (size_t i = 0; i < length; i++)
        seed = mix(seed * 31 + (unsigned char)text[i]);
    return seed;
}

/* Writes the path that a call is about, and returns whether it is the root or lies below it. */
static int find_path(int fd, const char *path, char *found) {
    char link[64];
    size_t root = strlen(orders->root), used = 0;
    if (path == NULL || path[0] != '/') {
        snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, found, PATH_MAX - 1);
        if (length < 0)
            return 0;
        used = length;
        found[used] = '\0';
    }
    if (path != NULL && path[0] != '\0' && used + strlen(path) + 2 < PATH_MAX)
        snprintf(found + used, PATH_MAX - used, "%s%s", used ? "/" : "", path);
    return root && strncmp(found, orders->root, root) == 0 && (found[root] == '/' || found[root] == '\0');
}

static int fails(int fd, const char *path) {
    static uint64_t n_calls;
    char found[PATH_MAX];
    int before = errno;
    if (orders == NULL || orders->per_million == 0 || orders->n_codes == 0 || !find_path(fd, path, found)) {
        errno = before;
        return 0;
    }
    uint64_t number = mix(orders->seed + getpid() * 0x9e3779b97f4a7c15u + __sync_fetch_and_add(&n_calls, 1));
    uint64_t place = hash(found, strlen(found), orders->seed);
    errno = before;
    if ((orders->by_folder ? place : number) % 1000000 >= orders->per_million)
        return 0;
    __sync_fetch_and_add(&orders->count, 1);
    errno = orders->codes[(orders->by_folder ? place : number) / 1000000 % orders->n_codes];
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name, folder, ...)                                                \
    {                                                                          \
        mode_t mode = 0;                                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                   \
            va_list rest;                                                      \
            va_start(rest, flags);                                             \
            mode = va_arg(rest, mode_t);                                       \
            va_end(rest);                                                      \
        }                                                                      \
        return fails(folder, path) ? -1 : REAL(name)(__VA_ARGS__, flags, mode); \
    }

int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD, path)
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD, path)
int openat(int fd, const char *path, int flags, ...) OPEN(openat, fd, fd, path)
int openat64(int fd, const char *path, int flags, ...) OPEN(openat64, fd, fd, path)

#define LOOK(name, folder, path, parameters, ...) \
    int name parameters { return fails(folder, path) ? -1 : REAL(name)(__VA_ARGS__); }

LOOK(stat, AT_FDCWD, path, (const char *path, struct stat *about), path, about)
LOOK(lstat, AT_FDCWD, path, (const char *path, struct stat *about), path, about)
LOOK(fstat, fd, NULL, (int fd, struct stat *about), fd, about)
LOOK(fstatat, fd, path, (int fd, const char *path, struct stat *about, int flags), fd, path, about, flags)
LOOK(stat64, AT_FDCWD, path, (const char *path, struct stat64 *about), path, about)
LOOK(lstat64, AT_FDCWD, path, (const char *path, struct stat64 *about), path, about)
LOOK(fstat64, fd, NULL, (int fd, struct stat64 *about), fd, about)
LOOK(fstatat64, fd, path, (int fd, const char *path, struct stat64 *about, int flags), fd, path, about, flags)
LOOK(statx, fd, path, (int fd, const char *path, int flags, unsigned mask, struct statx *about), fd, path, flags, mask, about)
LOOK(statvfs, AT_FDCWD, path, (const char *path, struct statvfs *about), path, about)
LOOK(fstatvfs, fd, NULL, (int fd, struct statvfs *about), fd, about)
LOOK(statvfs64, AT_FDCWD, path, (const char *path, struct statvfs64 *about), path, about)
LOOK(fstatvfs64, fd, NULL, (int fd, struct statvfs64 *about), fd, about)

DIR *opendir(const char *path) { return fails(AT_FDCWD, path) ? NULL : REAL(opendir)(path); }
DIR *fdopendir(int fd) { return fails(fd, NULL) ? NULL : REAL(fdopendir)(fd); }
struct dirent *readdir(DIR *folder) { return fails(dirfd(folder), NULL) ? NULL : REAL(readdir)(folder); }
struct dirent64 *readdir64(DIR *folder) { return fails(dirfd(folder), NULL) ? NULL : REAL(readdir64)(folder); }
