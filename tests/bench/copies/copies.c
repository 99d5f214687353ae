/*
 * copies: counts the bytes that a program copies in user space. Preloaded into it (LD_PRELOAD).
 *
 * Stands in for memcpy() and memmove() and their checked forms, in the program and in all of its
 * libraries. Where BENCH_COPIES names a file of eight bytes, the count is kept there, in the
 * machine's own order, for anybody to read meanwhile. What a compiler made of a copy of a size that
 * it knew is not seen: heads of frames, not what they carry.
 *
 * It copies byte by byte, so a program under it is slow: nothing else is measured then.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef _Atomic uint64_t count;

static count unnamed; /* until the file is there, and without one. */
static count *bytes_copied = &unnamed;

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("BENCH_COPIES");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    void *at = mmap(NULL, sizeof(count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (at != MAP_FAILED) {
        bytes_copied = at;
    }
}

/* Volatile, or a compiler sees what it is and calls memmove(). */
static void *copy(void *to, const void *from, size_t size)
{
    volatile uint8_t *out = to;
    const volatile uint8_t *in = from;
    atomic_fetch_add_explicit(bytes_copied, size, memory_order_relaxed);
    if ((uintptr_t)out - (uintptr_t)in >= size) {
        for (size_t i = 0; i < size; i++) {
            out[i] = in[i];
        }
    } else { /* it overlaps, and 'to' lies behind 'from'. */
        for (size_t i = size; i > 0; i--) {
            out[i - 1] = in[i - 1];
        }
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room);
void *__memmove_chk(void *to, const void *from, size_t size, size_t room);

void *memcpy(void *to, const void *from, size_t size)
{
    return copy(to, from, size);
}

void *memmove(void *to, const void *from, size_t size)
{
    return copy(to, from, size);
}

void *__memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room) {
        abort();
    }
    return copy(to, from, size);
}

void *__memmove_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room) {
        abort();
    }
    return copy(to, from, size);
}
