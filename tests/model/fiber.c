/* fiber: see fiber.h. ASan is told of each switch: it keeps a notion of the stack. */
#include "tests/model/fiber.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "common/base/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SWITCH_START(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define SWITCH_END(save, bottom, size) __sanitizer_finish_switch_fiber(save, bottom, size)
#define STACK_CLEAN(bottom, size) __asan_unpoison_memory_region(bottom, size)
#else
#define SWITCH_START(save, bottom, size) (void)(save), (void)(bottom), (void)(size)
#define SWITCH_END(save, bottom, size) (void)(save), (void)(bottom), (void)(size)
#define STACK_CLEAN(bottom, size) (void)(bottom), (void)(size)
#endif

enum { STACK_SIZE = 1 << 20, POOL_MAX = 256 };

struct fiber {
    ucontext_t here;
    ucontext_t there; /* whoever resumed it. */
    void *stack;
    void *fake_stack; /* ASan's, while it does not run. */
    const void *there_bottom;
    size_t there_size;
    void (*body)(void *ctx);
    void *ctx;
    bool ended;
};

typedef int switch_fn(ucontext_t *from, const ucontext_t *to);

/* glibc's own swapcontext(): ASan's would clean all of a stack's shadow at each switch, for fear
 * that nobody tells it. */
static switch_fn *switch_context(void)
{
    static switch_fn *found;
    if (found == NULL) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        CHECK(libc != NULL);
        void *symbol = dlsym(libc, "swapcontext");
        CHECK(symbol != NULL);
        memcpy(&found, &symbol, sizeof(found)); /* a function's address by POSIX, not by ISO C. */
    }
    return found;
}

/* Stacks of fibers that are no more: a schedule makes hundreds. */
static void *pool[POOL_MAX];
static size_t pool_count;

static void *stack_take(void)
{
    if (pool_count > 0) {
        return pool[--pool_count];
    }
    void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    CHECK(stack != MAP_FAILED);
    return stack;
}

static void stack_give(void *stack)
{
    if (pool_count < POOL_MAX) {
        pool[pool_count++] = stack;
    } else {
        CHECK(munmap(stack, STACK_SIZE) == 0);
    }
}

/* makecontext() passes ints: the fiber comes by a variable that only its first turn reads. */
static struct fiber *starting;

static void enter(void)
{
    struct fiber *self = starting;
    SWITCH_END(NULL, &self->there_bottom, &self->there_size);
    self->body(self->ctx);
    self->ended = true;
    SWITCH_START(NULL, self->there_bottom, self->there_size); /* NULL: it never comes back. */
    (void)setcontext(&self->there);
    CHECK(false);
}

struct fiber *fiber_new(void (*body)(void *ctx), void *ctx)
{
    struct fiber *f = calloc(1, sizeof(*f));
    CHECK(f != NULL);
    f->stack = stack_take();
    f->body = body;
    f->ctx = ctx;
    STACK_CLEAN(f->stack, STACK_SIZE);
    CHECK(getcontext(&f->here) == 0);
    f->here.uc_stack.ss_sp = f->stack;
    f->here.uc_stack.ss_size = STACK_SIZE;
    makecontext(&f->here, enter, 0);
    return f;
}

void fiber_free(struct fiber *fiber)
{
    stack_give(fiber->stack);
    free(fiber);
}

bool fiber_resume(struct fiber *fiber)
{
    void *fake_stack = NULL;
    CHECK(!fiber->ended);
    starting = fiber;
    SWITCH_START(&fake_stack, fiber->stack, STACK_SIZE);
    CHECK(switch_context()(&fiber->there, &fiber->here) == 0);
    SWITCH_END(fake_stack, NULL, NULL);
    return fiber->ended;
}

void fiber_yield(struct fiber *self)
{
    SWITCH_START(&self->fake_stack, self->there_bottom, self->there_size);
    CHECK(switch_context()(&self->here, &self->there) == 0);
    SWITCH_END(self->fake_stack, &self->there_bottom, &self->there_size);
}
