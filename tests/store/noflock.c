/* A file system without locks, as Lustre, some NFS and some ZFS mounts are: flock and the locks of fcntl fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>

static int refused(void) { errno = atoi(getenv("NOFLOCK_ERRNO")); return -1; }

int flock(int fd, int operation) { (void)fd; (void)operation; return refused(); }

static int passed_on(const char *name, int fd, int command, void *argument) {
    int is_lock = command == F_SETLK || command == F_SETLKW || command == F_GETLK
                  || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
    return is_lock ? refused() : real(fd, command, argument);
}

#define PASSED_ON(NAME) int NAME(int fd, int command, ...) { \
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    return passed_on(#NAME, fd, command, argument); }
PASSED_ON(fcntl)
PASSED_ON(fcntl64)
