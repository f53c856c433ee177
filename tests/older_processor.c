/* Hide instruction sets from a program: preloaded, this library makes an x86-64 Linux processor
 * look like one with AVX2 alone (no AVX-512, VNNI, bf16 or AMX).
 *
 * Programs ask for instruction sets with the instruction cpuid. arch_prctl(ARCH_SET_CPUID, 0) makes
 * the processor fault on it (Intel since 2012, AMD since 2022; man 2 arch_prctl). The handler of
 * that fault runs cpuid itself and clears the bits of the newer sets. What runs then are the real
 * kernels for AVX2 at their real speed, in any library. Children inherit it by LD_PRELOAD.
 *
 *     gcc -O2 -shared -fPIC -o older_processor.so tests/older_processor.c
 *     LD_PRELOAD=$PWD/older_processor.so python ...
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

static long allow_cpuid(long allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)r[REG_RIP];
    unsigned leaf = r[REG_RAX], subleaf = r[REG_RCX], a, b, c, d;
    if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
        signal(number, SIG_DFL); /* some other fault: happens again, and ends the program */
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

__attribute__((constructor)) static void start(void) {
    static const char excuse[] = "older_processor: this processor or kernel cannot fault on cpuid\n";
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, 0);
    if (allow_cpuid(0) && write(2, excuse, sizeof excuse - 1)) _exit(3);
}
