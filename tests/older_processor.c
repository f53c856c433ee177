/* Hide instruction sets from a program: preloaded, this library makes an x86-64 Linux processor
 * look like one with AVX2 alone (no AVX-512, VNNI, bf16 or AMX).
 *
 * Programs ask for instruction sets with the instruction cpuid. arch_prctl(ARCH_SET_CPUID, 0) makes
 * the processor fault on it (Intel since 2012, AMD since 2022; man 2 arch_prctl). The handler of
 * that fault runs cpuid itself and clears the bits of the newer sets. What runs then are the real
 * kernels for AVX2 at their real speed, in any library. Children inherit it by LD_PRELOAD.
 *
 * The handler stays the first one: a browser sets handlers of SIGSEGV as well, and blocks signals.
 *
 *     gcc -O2 -shared -fPIC -o older_processor.so tests/older_processor.c -ldl
 *     LD_PRELOAD=$PWD/older_processor.so python ...
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

/* What the program asked for: runs for every other fault. */
static struct sigaction programs;

static int set_action(int number, const struct sigaction *new, struct sigaction *old) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    return next(number, new, old);
}

static long allow_cpuid(long allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)r[REG_RIP];
    unsigned leaf = r[REG_RAX], subleaf = r[REG_RCX], a, b, c, d;
    if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
        if (programs.sa_flags & SA_SIGINFO) {
            programs.sa_sigaction(number, info, context);
        } else if (programs.sa_handler != SIG_DFL && programs.sa_handler != SIG_IGN) {
            programs.sa_handler(number);
        } else {
            set_action(number, &programs, 0); /* it happens again, and ends the program */
        }
        return;
    }
    allow_cpuid(1);
    __cpuid_count(leaf, subleaf, a, b, c, d);
    allow_cpuid(0);
    if (leaf == 7 && subleaf == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* AVX512_VNNI is bit 11 */
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25)); /* AMX: 22 to 25 */
    } else if (leaf == 7 || leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {
        a = b = c = d = 0; /* AVX-VNNI, AVX512_BF16, tiles, AVX10 */
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    struct sigaction before = programs;
    if (number != SIGSEGV) return set_action(number, new, old);
    if (new) programs = *new;
    if (old) *old = before;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction new, old;
    memset(&new, 0, sizeof new);
    new.sa_handler = handler;
    new.sa_flags = SA_RESTART;
    return sigaction(number, &new, &old) ? SIG_ERR : old.sa_handler;
}

/* A blocked fault would end the program. */
static int mask(const char *name, int how, const sigset_t *set, sigset_t *old) {
    int (*next)(int, const sigset_t *, sigset_t *) = dlsym(RTLD_NEXT, name);
    sigset_t without;
    if (set && how != SIG_UNBLOCK) {
        without = *set;
        sigdelset(&without, SIGSEGV);
        set = &without;
    }
    return next(how, set, old);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
    return mask("sigprocmask", how, set, old);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    return mask("pthread_sigmask", how, set, old);
}

__attribute__((constructor)) static void start(void) {
    static const char excuse[] = "older_processor: this processor or kernel cannot fault on cpuid\n";
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    set_action(SIGSEGV, &action, 0);
    if (allow_cpuid(0) && write(2, excuse, sizeof excuse - 1)) _exit(3);
}
