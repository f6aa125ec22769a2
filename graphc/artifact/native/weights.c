/* The weights file: a safetensors file whose header is padded so that the tensors start 64-byte aligned. It is mapped,
 * never copied, after its size and header were compared with what the module was built with.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int graphc_map_weights(const char *path, int verify, graphc_weights *weights) {
    const graphc_tables *t = &graphc_module_tables;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return graphc_fail(GRAPHC_ERROR_FILE, "cannot open the weights `%s`: %s", path, strerror(errno));
    struct stat about;
    if (fstat(file, &about) || !S_ISREG(about.st_mode)) {
        close(file);
        return graphc_fail(GRAPHC_ERROR_FILE, "the weights `%s` are not a regular file", path);
    }
    if ((uint64_t)about.st_size != t->weights_bytes) {
        close(file);
        return graphc_fail(GRAPHC_ERROR_FILE,
                           "the weights `%s` have %lld bytes, but `%s` was built with %llu: the file is truncated or "
                           "belongs to another module",
                           path, (long long)about.st_size, t->info.name, (unsigned long long)t->weights_bytes);
    }
    void *map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    int reason = errno;
    close(file);
    if (map == MAP_FAILED)
        return graphc_fail(GRAPHC_ERROR_FILE, "cannot map the weights `%s`: %s", path, strerror(reason));
    *weights = (graphc_weights){map, (size_t)about.st_size, (const char *)map + t->weights_header};

    uint8_t digest[32];
    graphc_sha256(map, t->weights_header, digest);
    int same = !memcmp(digest, t->header_sha256, 32);
    if (same && verify) {
        graphc_sha256(map, weights->bytes, digest);
        same = !memcmp(digest, t->weights_sha256, 32);
    }
    if (same) return GRAPHC_OK;
    graphc_unmap_weights(weights);
    return graphc_fail(GRAPHC_ERROR_FILE,
                       "the weights `%s` are not those that `%s` was built with: the file was altered or belongs to "
                       "another module",
                       path, t->info.name);
}

void graphc_unmap_weights(graphc_weights *weights) {
    if (weights->map) munmap(weights->map, weights->bytes);
    *weights = (graphc_weights){0};
}

/* SHA-256 (FIPS 180-4, sections 5.1.1 and 6.2). */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(uint32_t h[8], const uint8_t *p) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + K[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

void graphc_sha256(const void *data, size_t bytes, uint8_t digest[32]) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *p = data;
    size_t left = bytes;
    for (; left >= 64; left -= 64, p += 64) block(h, p);
    uint8_t tail[128] = {0};
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    size_t size = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) tail[size - 1 - (size_t)i] = (uint8_t)((uint64_t)bytes * 8 >> (8 * i));
    for (size_t i = 0; i < size; i += 64) block(h, tail + i);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}
