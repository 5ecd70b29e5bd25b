/* The convolution block of autograd.py on CPUs: 3x3 convolution, with a stride of 1 or 2, batch normalization, max-pooling and ReLU, with first and second derivatives.

Images are (tasks, images, height, width, channels), contiguous float32. Every task has its own filters, scale, shift and statistics; filters and their
gradients have torch's layout (out, in, 3, 3). Products are computed in float32 or in bfloat16; sums are always accumulated in float32 or double.

Speed: one image at a time goes through the whole block, so that it stays in the cache and the time is that of the multiplications. In
float32, a convolution with a stride of 1 uses Winograd's algorithm, less than half of the multiplications, where the channels fill whole vectors.
Threads take parts of the images, one after the other. The sums of the parts are added in their order, so that results do not depend on timing.

Sizes: images have `rows` x `columns` pixels, the result of the convolution `height` x `width`: the same, or with a stride of 2 half as many, rounded up.

Names: y is the result of the convolution, z = scale * y + shift, e the extreme of y in a pooling window (the place where z is largest), and
out = relu(z) there. With batch statistics, scale = a / sqrt(var + eps) and shift = b - mean * scale; with fixed statistics (eps < 0), scale = a and
shift = b. A leading g means the gradient for a value.

Elements: in float32 an element is one float, in bfloat16 a pair of numbers that are neighbors along the axis that is summed over. Both have 32 bits,
so that one code serves both. */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 14, ROWS = 9 }; /* floats in a vector; pixels, and rows of filters, whose sums stay in registers, two vectors for each */
#elif defined(__AVX__)
enum { LANES = 8, TILE = 6, ROWS = 6 };
#else
enum { LANES = 4, TILE = 12, ROWS = 9 };
#endif
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));
typedef float element __attribute__((may_alias, aligned(2)));

typedef struct {
    long tasks, images, rows, columns, height, width, in, out; /* images of a task; channels */
    long stride, pool, relu, bf16, threads;
} Shape;

typedef struct {
    const float *data; /* (tasks, out, in, 9): torch's layout */
    long task;         /* distance from one task to the next; 0 where all tasks share the filters */
} Filters;

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
#define EACH(i, n) for (long i = 0; i < (n); i++)

static long least(long a, long b) { return a < b ? a : b; }
static long up(long n, long to) { return (n + to - 1) / to * to; }

#define VEC(at) (*(vec *)(at)) /* the vector that begins at this address */
enum { FEW = 32, CHAINS = 4 }; /* numbers added in single precision before the sum is added to one in double precision; sums that do not wait for each other */
INLINE vec total(const vec *sums) { return (sums[0] + sums[1]) + (sums[2] + sums[3]); }
INLINE void widen(double *to, vec sum) {
    EACH(c, LANES) to[c] += sum[c];
}

INLINE vec masked(mask where, vec value) { return (vec)((mask)value & where); }
INLINE vec either(mask where, vec there, vec elsewhere) { return (vec)(((mask)there & where) | ((mask)elsewhere & ~where)); }

enum { BORDERED, TURNED, PAIRED, STEPS, RESULT, GRADIENT, FORTH, BACK, ALSO_FORTH, ALSO_BACK, ROW, SUMS, AFFINE, TILES, PRODUCTS, KEPT };

static pthread_key_t ending;

static void free_all(void *memory) { /* called when a thread ends */
    EACH(i, KEPT) free(((void **)memory)[i]);
}

static void prepare(void) { pthread_key_create(&ending, free_all); }

/* Scratch memory of this thread, reused from call to call. NULL where there is not enough; `reserve` finds this out before any of it is used. */
static void *kept(int which, size_t bytes) {
    static __thread void *memory[KEPT];
    static __thread size_t sizes[KEPT];
    static __thread int known;
    if (!known) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        pthread_once(&once, prepare);
        pthread_setspecific(ending, memory);
        known = 1;
    }
    if (sizes[which] < bytes) {
        free(memory[which]);
        memory[which] = aligned_alloc(64, up(bytes, 64));
        sizes[which] = memory[which] ? bytes : 0;
    }
    return memory[which];
}

/* -- Products ----------------------------------------------------------------------------------------------------------------------------------- */

INLINE vec multiply_add(vec sum, element x, vec f, const int bf16) {
#if defined(__AVX512BF16__)
    if (bf16) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(x), (__m512bh)f);
#endif
    return sum + x * f;
}

INLINE uint16_t rounded(float x) { /* to bfloat16, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return bits >> 16 | 0x40; /* a NaN: rounding up could carry into the sign bit */
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE long elements(long n, long bf16) { return bf16 ? (n + 1) / 2 : n; }

/* x (h, w, channels) as (h + 2, w + 2, elements of channels), zeros around. */
static void *border(const Shape *s, float *to, const float *x, long h, long w, long channels) {
    const long row = (w + 2) * elements(channels, s->bf16);
    memset(to, 0, (h + 2) * row * 4);
    EACH(i, h) {
        float *at = to + (i + 1) * row + elements(channels, s->bf16);
        const float *from = x + i * w * channels;
        if (!s->bf16)
            memcpy(at, from, w * channels * 4);
        else if (channels % 2 == 0)
            EACH(j, w * channels) ((uint16_t *)at)[j] = rounded(from[j]);
        else
            EACH(j, w) EACH(c, channels) ((uint16_t *)at)[j * (channels + 1) + c] = rounded(from[j * channels + c]);
    }
    return to;
}

/* Winograd's algorithm F(2 x 2, 3 x 3), Lavin and Gray 2015, arXiv:1509.09308, section 4.1: a tile of 2 x 2 results is A' [(G w G') * (B' d B)] A for
a filter w and 4 x 4 pixels d, with 16 products instead of 36. The gradient for the filter is the adjoint, G' [(B' d B) * (A g A')] G. */
static int winograd(const Shape *s) { /* in float32, where it has at most three quarters of the products */
    const long pixels = s->height * s->width, tiles = ((s->height + 1) / 2) * ((s->width + 1) / 2);
    return !s->bf16 && s->stride == 1 && s->in % LANES == 0 && tiles >= 4 && 64 * tiles <= 27 * pixels;
}

static long taps(const Shape *s) { return winograd(s) ? 16 : 9; }

/* One axis of a transform, in place; numbers of the axis are `n` apart. */
INLINE void image_axis(vec *t, int n) { /* B' */
    const vec second = t[n], third = t[2 * n];
    t[0] -= third, t[n] = second + third, t[2 * n] = third - second, t[3 * n] = second - t[3 * n];
}

INLINE void filter_axis(vec *t, int n) { /* G */
    const vec even = 0.5f * (t[0] + t[2 * n]), odd = 0.5f * t[n];
    t[3 * n] = t[2 * n], t[n] = even + odd, t[2 * n] = even - odd;
}

INLINE void result_axis(vec *t, int n) { /* A' */
    const vec second = t[n], third = t[2 * n];
    t[0] += second + third, t[n] = second - third - t[3 * n];
}

INLINE void gradient_axis(vec *t, int n) { /* A */
    const vec first = t[0], second = t[n];
    t[n] = first + second, t[2 * n] = first - second, t[3 * n] = -second;
}

INLINE void filter_gradient_axis(vec *t, int n) { /* G' */
    const vec even = 0.5f * (t[n] + t[2 * n]), odd = 0.5f * (t[n] - t[2 * n]);
    t[0] += even, t[n] = odd, t[2 * n] = even + t[3 * n];
}

/* Both axes of the 4 x 4 numbers t: down the first `columns` columns, then along the first `rows` rows. */
INLINE void both_axes(void (*const axis)(vec *, int), vec *t, const int columns, const int rows) {
    UNROLLED(i, columns) axis(t + i, 4);
    UNROLLED(i, rows) axis(t + 4 * i, 1);
}

static void spread_filters(float *filters, long n) { /* G w G', in place: from (9, n) to (16, n) */
    for (long i = 0; i < n; i += LANES) {
        vec t[16];
        UNROLLED(k, 9) t[k / 3 * 4 + k % 3] = VEC(filters + k * n + i);
        both_axes(filter_axis, t, 3, 4);
        UNROLLED(k, 16) VEC(filters + k * n + i) = t[k];
    }
}

static void gather_filters(float *filters, long apart, long n) { /* G' m G, in place: from (16, n) to (9, n), `apart` from one of the 16 to the next */
    for (long i = 0; i < n; i += LANES) {
        vec t[16];
        UNROLLED(k, 16) t[k] = VEC(filters + k * apart + i);
        both_axes(filter_gradient_axis, t, 4, 3);
        UNROLLED(k, 9) VEC(filters + k * apart + i) = t[k / 3 * 4 + k % 3];
    }
}

enum { MOST = 56 }; /* tiles that are transformed together: few enough for the second-level cache */

/* Where one of the 16 numbers of n tiles begins, in a row of them: not at multiples of 4 KiB, which share a few lines of the cache. */
static long plane(long n, long channels) { return n * channels + LANES; }

/* The n tiles from `first` on of some images (h, w, channels), transformed, (16, n, channels): B' d B, or, of gradients for results, A g A'. */
INLINE void spread(const int gradients, float *to, const float *x, long h, long w, long channels, long first, long n) {
    const int size = gradients ? 2 : 4;
    const long across = (w + 1) / 2, tiles = (h + 1) / 2 * across, apart = plane(n, channels);
    float *outside = to + 16 * apart;
    memset(outside, 0, channels * 4);
    const float *image = x + first / tiles * h * w * channels;
    long top = first % tiles / across * 2 - !gradients, left = first % tiles % across * 2 - !gradients;
    EACH(i, n) {
        const float *at[16];
        UNROLLED(k, size * size) {
            const long row = top + k / size, column = left + k % size, inside = row >= 0 && row < h && column >= 0 && column < w;
            at[k] = inside ? image + (row * w + column) * channels : outside;
        }
        for (long c = 0; c < channels; c += LANES) {
            vec t[16];
            UNROLLED(k, size * size) t[k / size * 4 + k % size] = VEC(at[k] + c);
            if (gradients) both_axes(gradient_axis, t, 2, 4);
            else both_axes(image_axis, t, 4, 4);
            UNROLLED(k, 16) VEC(to + k * apart + i * channels + c) = t[k];
        }
        if ((left += 2) + !gradients < w) continue;
        left = -!gradients;
        if ((top += 2) + !gradients >= h) top = -!gradients, image += h * w * channels;
    }
}

/* The filters of a task, (out, in, 9), as (9, elements of `from`, `to` channels rounded up to whole vectors): from `in` to `out`, or, `back`, rotated by
half a turn and from `out` to `in`, as the gradient for the images needs them; or, with Winograd's algorithm, (16, ...). */
static float *pack(const Shape *s, const Filters *f, long task, int back, int where) {
    const long from = back ? s->out : s->in, to = back ? s->in : s->out, wide = up(to, LANES), count = elements(from, s->bf16);
    const long along = back ? 9 * s->in : 9, across = back ? 9 : 9 * s->in; /* from one channel of `from` and of `to` to the next */
    float *packed = kept(where, taps(s) * count * wide * 4);
    if (wide != to) memset(packed, 0, 9 * count * wide * 4);
    EACH(i, count) EACH(t, 9) { /* taps inside, so that a cache line of the filters is read once */
        const float *at = f->data + task * f->task + (s->bf16 ? 2 * i : i) * along + (back ? 8 - t : t), *odd = at + along;
        float *row = packed + (t * count + i) * wide;
        uint32_t *pair = (uint32_t *)row;
        if (!s->bf16) EACH(o, to) row[o] = at[o * across];
        else if (2 * i + 1 < from) EACH(o, to) pair[o] = rounded(at[o * across]) | (uint32_t)rounded(odd[o * across]) << 16;
        else EACH(o, to) pair[o] = rounded(at[o * across]);
    }
    if (winograd(s)) spread_filters(packed, count * wide);
    return packed;
}

/* For P pixels and V vectors of channels: writes the sums over `taps` taps and `in` elements to the places `to`, or adds them to what is there. `tap` is
where a tap is, seen from the pixel, and `filter` which of the filters it multiplies. P, V and bf16 are constants where this is inlined, so that all sums
stay in registers. */
INLINE void tile(
    const int P, const int V, const int bf16, float *const *to, const element *const *from, long taps, const long *tap, const long *filter,
    const float *filters, long in, long out, int add
) {
    vec sum[TILE][2];
    UNROLLED(p, P) UNROLLED(v, V) {
        sum[p][v] = (vec){0};
        if (add) sum[p][v] = VEC(to[p] + v * LANES);
    }
    EACH(t, taps) EACH(c, in) {
        vec f[2];
        UNROLLED(v, V) f[v] = VEC(filters + (filter[t] * in + c) * out + v * LANES);
        UNROLLED(p, P) {
            const element x = from[p][tap[t] + c];
            UNROLLED(v, V) sum[p][v] = multiply_add(sum[p][v], x, f[v], bf16);
        }
    }
    UNROLLED(p, P) UNROLLED(v, V) VEC(to[p] + v * LANES) = sum[p][v];
}

INLINE void tiles(
    const int V, const int bf16, int P, float *const *to, const element *const *from, long taps, const long *tap, const long *filter,
    const float *filters, long in, long out, int add
) {
#define CASE(n)                                                                                                                                       \
    case n:                                                                                                                                           \
        if (n <= TILE) tile(n, V, bf16, to, from, taps, tap, filter, filters, in, out, add);                                                          \
        break;
    switch (P) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) }
#undef CASE
}

/* A lattice of pixels that are computed alike: h x w of them in every image, and the distances from one to the next, from row to row and from image to
image, where they are read and where they are written, in pixels; and their taps. */
typedef struct {
    long images, h, w, read, read_row, read_image, write, write_row, write_image, taps, tap[9], filter[9];
} Lattice;

/* The sums over the taps of a lattice. `in` and `out` as packed. */
INLINE void convolved(const int bf16, const Lattice *l, float *to, const float *bordered, const float *filters, long in, long out, int add) {
    const long pixels = l->images * l->h * l->w, groups = (pixels + TILE - 1) / TILE;
    if (!pixels) return; /* a stride of 2 on images of one row or column */
    const long each = pixels / groups, more = pixels % groups;
    long tap[9];
    EACH(t, l->taps) tap[t] = l->tap[t] * in;
    for (long o = 0; o < out; o += 2 * LANES) {
        const int two = o + 2 * LANES <= out;
        for (long g = 0, image = 0, row = 0, column = 0; g < groups; g++) {
            const long P = each + (g < more);
            const element *from[TILE];
            float *into[TILE];
            EACH(p, P) {
                from[p] = (const element *)bordered + (image * l->read_image + row * l->read_row + column * l->read) * in;
                into[p] = to + (image * l->write_image + row * l->write_row + column * l->write) * out + o;
                if (++column < l->w) continue;
                column = 0;
                if (++row == l->h) row = 0, image++;
            }
            if (two) tiles(2, bf16, P, into, from, l->taps, tap, l->filter, filters + o, in, out, add);
            else tiles(1, bf16, P, into, from, l->taps, tap, l->filter, filters + o, in, out, add);
        }
    }
}

/* `convolve` with Winograd's algorithm. */
static void convolve_tiles(const Shape *s, float *to, const float *x, long images, long in, const float *filters, long out, int add) {
    const long h = s->height, w = s->width, tiles = images * ((h + 1) / 2) * ((w + 1) / 2), parts = (tiles + MOST - 1) / MOST;
    float *spread_out = kept(TILES, (16 * plane(MOST, in) + in) * 4), *products = kept(PRODUCTS, 16 * plane(MOST, out) * 4);
    long row = 0, column = 0;
    EACH(part, parts) {
        const long first = tiles * part / parts, n = tiles * (part + 1) / parts - first, apart = plane(n, out);
        const Lattice all = {.images = 1, .h = 1, .w = n, .read = 1, .write = 1, .taps = 1};
        spread(0, spread_out, x, h, w, in, first, n);
        EACH(k, 16) convolved(0, &all, products + k * apart, spread_out + k * plane(n, in), filters + k * in * out, in, out, 0);
        EACH(i, n) {
            for (long c = 0; c < out; c += LANES) {
                vec t[16];
                UNROLLED(k, 16) t[k] = VEC(products + k * apart + i * out + c);
                both_axes(result_axis, t, 4, 2);
                UNROLLED(k, 4) if (row + k / 2 < h && column + k % 2 < w) {
                    float *at = to + ((row + k / 2) * w + column + k % 2) * out + c;
                    vec value = t[k / 2 * 4 + k % 2];
                    if (add) value += VEC(at);
                    VEC(at) = value;
                }
            }
            if ((column += 2) < w) continue;
            column = 0;
            if ((row += 2) >= h) row = 0, to += h * w * out;
        }
    }
}

/* From images x (images, rows, columns, channels) to results (images, height, width, out); or, `back`, from gradients for results to those for images,
with the filters packed that way. With a stride, an image's even and odd rows and columns meet different taps on the way back, one lattice for each. */
static void convolve(const Shape *s, int back, float *to, const float *x, long images, long channels, const float *filters, long out, int add) {
    if (winograd(s)) {
        convolve_tiles(s, to, x, images, channels, filters, out, add);
        return;
    }
    const long h = back ? s->height : s->rows, w = back ? s->width : s->columns, in = elements(channels, s->bf16), plane = (h + 2) * (w + 2);
    const long H = back ? s->rows : s->height, W = back ? s->columns : s->width, wide = up(out, LANES), apart = back ? s->stride : 1;
    float *bordered = kept(BORDERED, images * plane * in * 4), *result = wide == out ? to : kept(ROW, images * H * W * wide * 4);
    EACH(i, images) border(s, bordered + i * plane * in, x + i * h * w * channels, h, w, channels);
    EACH(i, apart) EACH(j, apart) {
        const long read = back ? 1 : s->stride;
        Lattice l = {images, (H - i + apart - 1) / apart, (W - j + apart - 1) / apart, read, read * (w + 2), plane, apart, apart * W, H * W, 0};
        EACH(t, 9) {
            const long down = t / 3 - 1, right = t % 3 - 1; /* on the way back, a tap that falls between results meets none */
            if ((i + down) % apart || (j + right) % apart) continue;
            l.tap[l.taps] = ((i + down) / apart + 1) * (w + 2) + (j + right) / apart + 1, l.filter[l.taps++] = t;
        }
        float *corner = result + (i * W + j) * wide;
        if (s->bf16) convolved(1, &l, corner, bordered, filters, in, wide, add && wide == out);
        else convolved(0, &l, corner, bordered, filters, in, wide, add && wide == out);
    }
    if (wide != out) EACH(p, images * H * W) EACH(c, out) to[p * out + c] = result[p * wide + c] + (add ? to[p * out + c] : 0);
}

INLINE void outer(
    const int K, const int V, const int bf16, float *to, const long *rows, const char *x, const long *from, const int64_t *steps, long count,
    const float *g, long out
) {
    vec sum[ROWS][2];
    UNROLLED(k, K) UNROLLED(v, V) sum[k][v] = VEC(to + rows[k] + v * LANES);
    EACH(i, count) {
        vec gy[2];
        UNROLLED(v, V) gy[v] = VEC(g + i * out + v * LANES);
        const char *at = x + steps[i];
        UNROLLED(k, K) {
            const element value = *(const element *)(at + from[k]);
            UNROLLED(v, V) sum[k][v] = multiply_add(sum[k][v], value, gy[v], bf16);
        }
    }
    UNROLLED(k, K) UNROLLED(v, V) VEC(to + rows[k] + v * LANES) = sum[k][v];
}

/* Adds sum_i x(steps[i] + offset of k) * g[i] to the rows k = (tap, in) of `to`, of n taps. All offsets are in bytes and of 64 bits: `taps` of the taps,
`channel` from one channel to the next, `steps` of the pixels. */
INLINE void outers(
    const int bf16, float *to, long in, long out, const char *x, long n, const long *taps, long channel, const int64_t *steps, long count,
    const float *g
) {
    const long groups = (n * in + ROWS - 1) / ROWS, each = n * in / groups, more = n * in % groups;
    for (long o = 0; o < out; o += 2 * LANES) for (long group = 0, row = 0, tap = 0, c = 0; group < groups; group++) {
        const long K = each + (group < more);
        long rows[ROWS], from[ROWS];
        EACH(k, K) {
            rows[k] = row++ * out, from[k] = taps[tap] + c * channel;
            if (++c == in) c = 0, tap++;
        }
#define CASE(n)                                                                                                                                       \
    case n:                                                                                                                                           \
        if (n <= ROWS && o + 2 * LANES <= out) outer(n, 2, bf16, to + o, rows, x, from, steps, count, g + o, out);                                     \
        else if (n <= ROWS) outer(n, 1, bf16, to + o, rows, x, from, steps, count, g + o, out);                                                       \
        break;
        switch (K) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) }
#undef CASE
    }
}

/* The number of images that are processed in one call: small ones together, because a call has a fixed cost and reads all filters. */
static long together(const Shape *s) { return least(s->images, 1 + 127 / (s->height * s->width)); }

/* `correlate` with Winograd's algorithm; `to` is (16, in, out). */
static void correlate_tiles(const Shape *s, float *to, const float *x, const float *g, long images) {
    const long h = s->height, w = s->width, in = s->in, out = s->out, none = 0;
    const long tiles = images * ((h + 1) / 2) * ((w + 1) / 2), parts = (tiles + MOST - 1) / MOST;
    float *of_x = kept(TILES, (16 * plane(MOST, in) + in) * 4), *of_g = kept(PRODUCTS, (16 * plane(MOST, out) + out) * 4);
    int64_t *steps = kept(STEPS, MOST * 8);
    EACH(i, MOST) steps[i] = i * in * 4;
    EACH(part, parts) {
        const long first = tiles * part / parts, n = tiles * (part + 1) / parts - first;
        spread(0, of_x, x, h, w, in, first, n), spread(1, of_g, g, h, w, out, first, n);
        EACH(k, 16) outers(0, to + k * in * out, in, out, (char *)(of_x + k * plane(n, in)), 1, &none, 4, steps, n, of_g + k * plane(n, out));
    }
}

/* Adds the gradient of the filters (9, in, out) for `images` inputs x (rows, columns, in) and gradients of results g (height, width, out). */
static void correlate(const Shape *s, float *to, const float *x, const float *g, long images) {
    if (winograd(s)) {
        correlate_tiles(s, to, x, g, images);
        return;
    }
    const long h = s->height, w = s->width, H = s->rows, W = s->columns, S = s->stride, in = s->in, out = s->out;
    long taps[9];
    if (!s->bf16) {
        const long plane = (H + 2) * (W + 2) * in;
        int64_t *steps = kept(STEPS, images * h * w * 8);
        float *bordered = kept(BORDERED, images * plane * 4);
        EACH(k, images) border(s, bordered + k * plane, x + k * H * W * in, H, W, in);
        EACH(k, images) EACH(i, h) EACH(j, w) steps[(k * h + i) * w + j] = (k * plane + (i * (W + 2) + j) * S * in) * 4;
        EACH(t, 9) taps[t] = (t / 3 * (W + 2) + t % 3) * in * 4;
        outers(0, to, in, out, (char *)bordered, 9, taps, 4, steps, images * h * w, g);
        return;
    }
    /* Pairs of pixels that are neighbors in g: x channel by channel, (in, images, H + 2, S, line), the columns of a stride together, and g interleaved. */
    const long line = up(w + 3, 2), plane = images * (H + 2) * S * line, pairs = (w + 1) / 2, wide = 2 * elements(in, 1);
    int64_t *steps = kept(STEPS, images * h * pairs * 8);
    uint16_t *turned = kept(TURNED, (in * plane + 2) * 2);
    uint32_t *paired = kept(PAIRED, images * h * pairs * out * 4);
    memset(turned, 0, (in * plane + 2) * 2);
    EACH(k, images) {
        const uint16_t *bordered = border(s, kept(BORDERED, (H + 2) * (W + 2) * wide * 2), x + k * H * W * in, H, W, in);
        EACH(i, H) EACH(c, in) {
            uint16_t *at = turned + c * plane + (k * (H + 2) + i + 1) * S * line;
            const uint16_t *from = bordered + (i + 1) * (W + 2) * wide + c;
            for (long j = 1; j <= W; j++) at[j % S * line + j / S] = from[j * wide];
        }
        EACH(i, h) EACH(j, pairs) {
            const long step = (k * h + i) * pairs + j;
            const float *even = g + ((k * h + i) * w + 2 * j) * out, *odd = even + out;
            steps[step] = ((k * (H + 2) + i * S) * S * line + 2 * j) * 2;
            if (2 * j + 1 < w) EACH(o, out) paired[step * out + o] = rounded(even[o]) | (uint32_t)rounded(odd[o]) << 16;
            else EACH(o, out) paired[step * out + o] = rounded(even[o]);
        }
    }
    EACH(t, 9) taps[t] = ((t / 3 * S + t % 3 % S) * line + t % 3 / S) * 2;
    outers(1, to, in, out, (char *)turned, 9, taps, plane * 2, steps, images * h * pairs, (float *)paired);
}

/* -- Pooling ------------------------------------------------------------------------------------------------------------------------------------ */

/* Loops over windows run for a constant size of the window where that is 1 or 2, without divisions. */
#define POOLED(s, function, ...)                                                                                                                      \
    switch ((s)->pool) {                                                                                                                              \
        case 1: function(1, s, __VA_ARGS__); break;                                                                                                   \
        case 2: function(2, s, __VA_ARGS__); break;                                                                                                   \
        default: function((s)->pool, s, __VA_ARGS__);                                                                                                 \
    }

/* The largest y of a window where a >= 0, else the smallest. */
INLINE void extremes_of(const long p, const Shape *s, float *e, const float *y, const float *a) {
    const long w = s->width, out = s->out;
    EACH(i, s->height / p) EACH(j, w / p) for (long c = 0; c < out; c += LANES, e += LANES) {
        const mask turn = (VEC(a + c) < 0) & INT32_MIN; /* the sign bit */
        vec found = (vec){0};
        EACH(k, p) EACH(l, p) {
            const vec next = (vec)((mask)VEC(y + ((i * p + k) * w + j * p + l) * out + c) ^ turn);
            found = k || l ? either((next > found) | (next != next), next, found) : next; /* a NaN wins, as in torch */
        }
        VEC(e) = (vec)((mask)found ^ turn);
    }
}

static void extremes(const Shape *s, float *e, const float *y, const float *a) { POOLED(s, extremes_of, e, y, a) }

typedef struct {
    float *scale, *shift; /* (out,) */
} Affine;

static Affine affine(const Shape *s, long task, const float *a, const float *b, const float *mean, const float *var, double eps) {
    float *to = kept(AFFINE, 2 * s->out * 4);
    const Affine f = {to, to + s->out};
    EACH(c, s->out) {
        const long i = task * s->out + c;
        f.scale[c] = eps < 0 ? a[i] : a[i] / sqrtf(var[i] + (float)eps);
        f.shift[c] = eps < 0 ? b[i] : b[i] - mean[i] * f.scale[c];
    }
    return f;
}

/* The gradient of z at the extreme of a window, channels c and on: g, or 0 where ReLU cuts it off. */
INLINE vec passed(const Shape *s, vec g, vec e, Affine f, long c) { return s->relu ? masked(~(VEC(f.scale + c) * e + VEC(f.shift + c) <= 0), g) : g; }

/* What the field (h, w, out) holds where y is the extreme of the window that begins at `corner`, channels c and on. */
INLINE vec chosen(const long p, const Shape *s, const float *y, vec e, const float *field, long corner, long c) {
    vec value = {0};
    mask open = ~(mask){0};
    EACH(k, p) EACH(l, p) {
        const long at = corner + (k * s->width + l) * s->out + c;
        const mask here = (VEC(y + at) == e) & open;
        value = either(here, VEC(field + at), value), open &= ~here;
    }
    return value;
}

/* -- Work shared among threads ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    long task, first, last; /* some images of one task */
} Part;

/* The number of parts of a task: a few for each thread. A thread that is done with a part takes the next, so that a slower one does fewer; every part
has sums of its own, which are added in order, so that results do not depend on who took it. */
static long divided(const Shape *s) {
    const long most = s->threads == 1 ? s->images : least(s->images, s->tasks * s->images / (4 * s->threads) + 1);
    return (s->images + most - 1) / most;
}

static long parts(const Shape *s) { return s->tasks * divided(s); }

static Part part(const Shape *s, long number) {
    const long n = divided(s), task = number / n, begin = task * s->images;
    return (Part){task, begin + s->images * (number % n) / n, begin + s->images * (number % n + 1) / n};
}

/* The sums of a task, n numbers, from those of its parts. */
static double *joined(const Shape *s, double *sums, long task, long n) {
    double *all = sums + task * divided(s) * n;
    for (long k = 1; k < divided(s); k++) EACH(c, n) all[c] += all[k * n + c];
    return all;
}

static void taps_last(float *restrict to, const float *restrict from, long in, long out) {
    EACH(o, out) EACH(t, 9) to[o * in * 9 + t] = from[t * in * out + o];
}

/* The gradient of the filters, (tasks, out, in, 9), from those of the parts, which are (9, in, out), or (16, in, out) with Winograd's algorithm. */
static void join_filters(const Shape *s, float *to, float *gw) {
    const long in = s->in, out = s->out, rows = taps(s);
#pragma omp for schedule(static)
    for (long i = 0; i < s->tasks * in; i++) {
        const long task = i / in, channel = i % in;
        float *all = gw + (task * divided(s) * rows * in + channel) * out;
        for (long k = 1; k < divided(s); k++) EACH(t, rows) EACH(o, out) all[t * in * out + o] += all[(k * rows + t) * in * out + o];
        if (winograd(s)) gather_filters(all, in * out, out);
        taps_last(to + (task * out * in + channel) * 9, all, in, out);
    }
}

/* The numbers of an image. */
static long inputs(const Shape *s) { return s->rows * s->columns * s->in; }

/* y of n images: stored, or computed again. */
static const float *result(const Shape *s, const float *y, const float *x, const float *filters, long image, long n) {
    const long pixels = s->height * s->width;
    if (y) return y + image * pixels * s->out;
    float *again = kept(RESULT, n * pixels * s->out * 4);
    convolve(s, 0, again, x + image * inputs(s), n, s->in, filters, s->out, 0);
    return again;
}

/* Reserves all scratch memory that this thread needs for a pass, so that nothing fails halfway. Returns 0 if there is not enough. `again`: y is
computed again; `back`: for derivatives. */
static int reserve(const Shape *s, int again, int back) {
    const long h = s->rows, w = s->columns, in = s->in, out = s->out, pixels = h * w, most = in > out ? in : out, group = together(s);
    const long wide_in = up(in, LANES), wide_out = up(out, LANES), bordered = (h + 2) * (w + 2) * 4;
    const long filters = taps(s) * 4 * elements(in, s->bf16) * wide_out, turned = taps(s) * 4 * elements(out, s->bf16) * wide_in;
    int enough = kept(SUMS, 2 * out * 8) && kept(AFFINE, 2 * out * 4) && kept(FORTH, filters);
    enough = enough && kept(BORDERED, group * bordered * elements(back ? most : in, s->bf16));
    enough = enough && (!again || kept(RESULT, group * pixels * out * 4));
    const long tiled = winograd(s) ? (16 * plane(MOST, most) + most) * 4 : 0;
    enough = enough && (!tiled || (kept(TILES, tiled) && kept(PRODUCTS, tiled)));
    const long row = back && wide_in != in ? group * pixels * wide_in : out;
    enough = enough && kept(ROW, 4 * (row > out ? row : out));
    if (!back || !enough) return enough;
    enough = kept(BACK, turned) && kept(ALSO_FORTH, filters) && kept(ALSO_BACK, turned) && kept(GRADIENT, group * pixels * out * 4);
    if (!s->bf16) return enough && kept(STEPS, (group * pixels + MOST) * 8);
    const long pairs = group * s->height * ((s->width + 1) / 2), line = s->stride * up(s->width + 3, 2);
    return enough && kept(STEPS, pairs * 8) && kept(PAIRED, pairs * out * 4) && kept(TURNED, (in * group * (h + 2) * line + 2) * 2);
}

/* -- The block ---------------------------------------------------------------------------------------------------------------------------------- */

/* Statistics as running count, mean and sum of squared deviations: Chan, Golub and LeVeque 1983, eq. (1.5). */
static void observe(double *seen, const float *y, long pixels, long out) {
    double *sum = kept(SUMS, 2 * out * 8), *square = sum + out;
    float *center = kept(ROW, out * 4); /* near the mean, so that one pass loses no precision */
    memset(sum, 0, 2 * out * 8);
    EACH(c, out) center[c] = seen[2 * out] ? seen[c] : y[pixels / 2 * out + c];
    for (long i = 0; i < pixels; i += FEW) for (long c = 0; c < out; c += LANES) {
        const long last = least(i + FEW, pixels);
        vec few[CHAINS] = {0}, squares[CHAINS] = {0};
        for (long k = i; k < last; k += CHAINS) UNROLLED(j, CHAINS) if (k + j < last) {
            const vec gap = VEC(y + (k + j) * out + c) - VEC(center + c);
            few[j] += gap, squares[j] += gap * gap;
        }
        widen(sum + c, total(few)), widen(square + c, total(squares));
    }
    const double count = seen[2 * out], all = count + pixels;
    EACH(c, out) {
        const double shift = sum[c] / pixels, gap = center[c] + shift - seen[c];
        seen[c] += gap * pixels / all, seen[out + c] += square[c] - shift * sum[c] + gap * gap * count * pixels / all;
    }
    seen[2 * out] = all;
}

/* The number of tasks that are processed together: few enough that what the first pass over their images writes is still in the cache for the second. */
static long sweep(const Shape *s) {
    const long floats = s->images * (s->height / s->pool) * (s->width / s->pool) * s->out, near = (1 << 20) / (floats + 1);
    return near > s->threads ? near / s->threads * s->threads : s->threads;
}

#define INPUTS const Shape *s, const float *x, const Filters *filters, const float *a, const float *b, double eps

static int forward(INPUTS, float *y, float *e, float *out, float *mean, float *var) {
    const long pixels = s->height * s->width, windows = (s->height / s->pool) * (s->width / s->pool), n = s->out;
    const long all = parts(s), size = 2 * n + 1;
    double *seen = calloc(all * size, 8);
    int failed = 0;
    if (!seen) return 1;
#pragma omp parallel num_threads(s->threads)
    {
        if (!reserve(s, !y, 0)) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
        if (failed) goto done; /* all threads, or none */
        const float *forth = 0;
        long packed = -1; /* the task whose filters are */
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            if (packed != mine.task) forth = pack(s, filters, packed = mine.task, 0, FORTH);
            for (long i = mine.first, some; i < mine.last; i += some) {
                some = least(together(s), mine.last - i);
                float *here = y ? y + i * pixels * n : kept(RESULT, some * pixels * n * 4);
                convolve(s, 0, here, x + i * inputs(s), some, s->in, forth, n, 0);
                if (eps >= 0) observe(seen + k * size, here, some * pixels, n);
                EACH(j, some) extremes(s, e + (i + j) * windows * n, here + j * pixels * n, a + mine.task * n);
            }
        }
        if (eps >= 0) {
#pragma omp for schedule(static)
            for (long task = 0; task < s->tasks; task++) {
                double *sum = seen + task * divided(s) * size;
                for (const double *next = sum + size; next < sum + divided(s) * size; next += size) {
                    const double count = sum[2 * n], more = next[2 * n];
                    EACH(c, n) {
                        const double gap = next[c] - sum[c];
                        sum[c] += gap * more / (count + more), sum[n + c] += next[n + c] + gap * gap * count * more / (count + more);
                    }
                    sum[2 * n] += more;
                }
                EACH(c, n) mean[task * n + c] = sum[c], var[task * n + c] = sum[n + c] / sum[2 * n];
            }
        }
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            const Affine f = affine(s, mine.task, a, b, mean, var, eps);
            for (long i = mine.first * windows; i < mine.last * windows; i++) for (long c = 0; c < n; c += LANES) {
                const vec z = VEC(e + i * n + c) * VEC(f.scale + c) + VEC(f.shift + c);
                VEC(out + i * n + c) = s->relu ? masked(~(z < 0), z) : z; /* keeps NaN */
            }
        }
    done:;
    }
    free(seen);
    return failed;
}

/* The three exported functions return 0, or 1 where memory ran out; their results are then undefined.

y and e are written unless they are NULL; e may be the same memory as out. */
int innerloop_forward(INPUTS, float *y, float *e, float *out, float *mean, float *var) {
    const long pixels = s->images * s->height * s->width, windows = s->images * (s->height / s->pool) * (s->width / s->pool), n = s->out;
    for (long t = 0; t < s->tasks; t += sweep(s)) {
        Shape some = *s;
        some.tasks = least(sweep(s), s->tasks - t);
        const Filters theirs = {filters->data + t * filters->task, filters->task};
        const long c = t * n, z = t * windows * n;
        if (forward(&some, x + t * s->images * inputs(s), &theirs, a + c, b + c, eps, y ? y + t * pixels * n : 0, e + z, out + z, mean + c, var + c)) return 1;
    }
    return 0;
}

/* The results of forward, and g, the gradient for out. */
#define MADE const float *y, const float *e, const float *mean, const float *var, const float *g

/* Sums over the windows of a task: gz, and gz * (e - mean). */
static void sum_passed(const Shape *s, double *sums, const float *g, const float *e, const float *mean, Affine f, long windows) {
    const long n = s->out;
    for (long i = 0; i < windows; i += FEW) for (long c = 0; c < n; c += LANES) {
        const long last = least(i + FEW, windows);
        vec plain[CHAINS] = {0}, moment[CHAINS] = {0};
        for (long k = i; k < last; k += CHAINS) UNROLLED(j, CHAINS) if (k + j < last) {
            const vec extreme = VEC(e + (k + j) * n + c), gz = passed(s, VEC(g + (k + j) * n + c), extreme, f, c);
            plain[j] += gz, moment[j] += gz * (extreme - VEC(mean + c));
        }
        widen(sums + c, total(plain)), widen(sums + n + c, total(moment));
    }
}

/* `field` computes constant + linear * y + more * other for one image, plus sparse * gz at the extremes; every factor is (out,). */
typedef struct {
    float *constant, *linear, *sparse, *more;
} Factors;

INLINE void field_of(
    const long p, const Shape *s, float *to, const float *y, const float *e, const float *g, const float *other, Affine f, Factors by
) {
    const long n = s->out, w = s->width, h = s->height, down = h / p, across = w / p;
    for (long i = 0, row = 0; row < h; i++, row += p) for (long j = 0, column = 0; column < w; j++, column += p) {
        const int pooled = i < down && j < across; /* otherwise pixels at the edge, in no window */
        const long P = pooled ? p : least(p, h - row), Q = pooled ? p : least(p, w - column);
        for (long c = 0; c < n; c += LANES) {
            const long window = (i * across + j) * n + c;
            const vec constant = VEC(by.constant + c), linear = VEC(by.linear + c), zero = {0};
            vec extreme = zero, left = zero;
            if (pooled) extreme = VEC(e + window), left = VEC(by.sparse + c) * passed(s, VEC(g + window), extreme, f, c);
            EACH(k, P) EACH(l, Q) {
                const long at = ((row + k) * w + column + l) * n + c;
                const vec pixel = VEC(y + at);
                const mask here = pixel == extreme; /* the first pixel with the extreme gets the whole gradient */
                vec value = constant + linear * pixel + masked(here, left);
                if (other) value += VEC(by.more + c) * VEC(other + at);
                VEC(to + at) = value, left = masked(~here, left);
            }
        }
    }
}

static void field(const Shape *s, float *to, const float *y, const float *e, const float *g, const float *other, Affine f, Factors by) {
    if (other) POOLED(s, field_of, to, y, e, g, other, f, by)
    else POOLED(s, field_of, to, y, e, g, 0, f, by)
}

static int backward(INPUTS, MADE, const float *g_mean, const float *g_var, const float *g_y, float *gx, float *gw, float *ga, float *gb) {
    const long pixels = s->height * s->width, windows = (s->height / s->pool) * (s->width / s->pool), n = s->out, filter = taps(s) * s->in * n;
    const double N = s->images * pixels;
    const long all = parts(s);
    double *sums = calloc(all * 2 * n, 8);
    float *of_filters = calloc(all * filter, 4), *factors = calloc(s->tasks * 4 * n, 4), *zeros = calloc(n, 4);
    int failed = !sums || !of_filters || !factors || !zeros;
    if (failed) goto end;
#pragma omp parallel num_threads(s->threads)
    {
        if (!reserve(s, !y, 1)) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
        if (failed) goto done; /* all threads, or none */
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            const Affine f = affine(s, mine.task, a, b, mean, var, eps);
            const float *center = eps < 0 ? zeros : mean + mine.task * n;
            for (long i = mine.first; i < mine.last; i++)
                sum_passed(s, sums + k * 2 * n, g + i * windows * n, e + i * windows * n, center, f, windows);
        }
#pragma omp for schedule(static)
        for (long task = 0; task < s->tasks; task++) {
            const double *sum = joined(s, sums, task, 2 * n);
            const Affine f = affine(s, task, a, b, mean, var, eps);
            float *constant = factors + task * 4 * n, *linear = constant + n, *sparse = linear + n;
            EACH(c, n) {
                const long i = task * n + c;
                const double root = eps < 0 ? 1 : 1 / sqrt(var[i] + eps);
                ga[i] = root * sum[n + c], gb[i] = sum[c], sparse[c] = f.scale[c];
                if (eps < 0) { constant[c] = linear[c] = 0; continue; }
                linear[c] = (-f.scale[c] * root * ga[i] + (g_var ? 2 * g_var[i] : 0)) / N;
                constant[c] = (-f.scale[c] * sum[c] + (g_mean ? g_mean[i] : 0)) / N - linear[c] * mean[i];
            }
        }
        const float *forth = 0, *back = 0;
        long packed = -1;
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            if (packed != mine.task) {
                if (!y) forth = pack(s, filters, mine.task, 0, FORTH);
                if (gx) back = pack(s, filters, mine.task, 1, BACK);
                packed = mine.task;
            }
            float *at = factors + mine.task * 4 * n;
            const Affine f = affine(s, mine.task, a, b, mean, var, eps);
            for (long i = mine.first, some; i < mine.last; i += some) {
                some = least(together(s), mine.last - i);
                const float *here = result(s, y, x, forth, i, some);
                float *gy = kept(GRADIENT, some * pixels * n * 4);
                EACH(j, some) {
                    const long window = (i + j) * windows * n, pixel = j * pixels * n;
                    field(s, gy + pixel, here + pixel, e + window, g + window, 0, f, (Factors){at, at + n, at + 2 * n, 0});
                }
                if (g_y) EACH(j, some * pixels * n) gy[j] += g_y[i * pixels * n + j];
                correlate(s, of_filters + k * filter, x + i * inputs(s), gy, some);
                if (gx) convolve(s, 1, gx + i * inputs(s), gy, some, n, back, s->in, 0);
            }
        }
        join_filters(s, gw, of_filters);
    done:;
    }
end:
    free(sums), free(of_filters), free(factors), free(zeros);
    return failed;
}

/* g_mean, g_var and g_y, the gradients for the moments and for y, may be NULL. */
int innerloop_backward(INPUTS, MADE, const float *g_mean, const float *g_var, const float *g_y, float *gx, float *gw, float *ga, float *gb) {
    const long pixels = s->images * s->height * s->width, windows = s->images * (s->height / s->pool) * (s->width / s->pool), n = s->out;
    for (long t = 0; t < s->tasks; t += sweep(s)) {
        Shape some = *s;
        some.tasks = least(sweep(s), s->tasks - t);
        const Filters theirs = {filters->data + t * filters->task, filters->task};
        const long c = t * n, at = t * s->images * inputs(s), z = t * windows * n, of_y = t * pixels * n;
        const int failed = backward(
            &some, x + at, &theirs, a + c, b + c, eps, y ? y + of_y : 0, e + z, mean + c, var + c, g + z, g_mean ? g_mean + c : 0,
            g_var ? g_var + c : 0, g_y ? g_y + of_y : 0, gx ? gx + at : 0, gw + t * 9 * s->in * n, ga + c, gb + c
        );
        if (failed) return 1;
    }
    return 0;
}

/* Adds the sum over the windows of an image of gz times what the field q holds at the extreme. */
INLINE void meet_of(const long p, const Shape *s, double *sum, const float *y, const float *e, const float *g, const float *q, Affine f) {
    const long n = s->out, across = s->width / p;
    EACH(i, s->height / p) for (long c = 0; c < n; c += LANES) {
        vec met = {0};
        EACH(j, across) {
            const long window = (i * across + j) * n + c;
            const vec extreme = VEC(e + window);
            met += passed(s, VEC(g + window), extreme, f, c) * chosen(p, s, y, extreme, q, (i * s->width + j) * p * n, c);
        }
        widen(sum + c, met);
    }
}

/* The gradient for g of an image: constant + linear * e + sparse * (what the field q holds at the extreme); the factors `by` are (3, out). */
INLINE void gathered_of(const long p, const Shape *s, float *to, const float *y, const float *e, const float *q, Affine f, const float *by) {
    const long n = s->out, across = s->width / p;
    EACH(i, s->height / p) EACH(j, across) for (long c = 0; c < n; c += LANES) {
        const long window = (i * across + j) * n + c;
        const vec extreme = VEC(e + window), found = chosen(p, s, y, extreme, q, (i * s->width + j) * p * n, c);
        VEC(to + window) = passed(s, VEC(by + c) + VEC(by + n + c) * extreme + VEC(by + 2 * n + c) * found, extreme, f, c);
    }
}

/* The gradient of <hx, gx> + <hw, gw> + <ha, ga> + <hb, gb> of `innerloop_backward` without g_y: for g, g_mean and g_var (gg, gg_mean, gg_var), x,
filters and a. For b it is zero. What goes through y is returned as gy, or, where gy is NULL, added to gx and gw. */
int innerloop_double_backward(
    INPUTS, MADE, const float *g_mean, const float *g_var, const float *hx, const Filters *hw, const float *ha, const float *hb, float *gg,
    float *gg_mean, float *gg_var, float *gx, float *gw, float *ga, float *gy
) {
    const long pixels = s->height * s->width, windows = (s->height / s->pool) * (s->width / s->pool), n = s->out, filter = taps(s) * s->in * n;
    const double N = s->images * pixels;
    const long all = parts(s);
    double *sums = calloc(all * 5 * n, 8);
    float *of_filters = calloc(all * filter, 4), *factors = calloc(s->tasks * 10 * n, 4), *zeros = calloc(n, 4);
    float *q = malloc(s->tasks * s->images * pixels * n * 4); /* the gradient of <hx, gx> + <hw, gw> for gy */
    int failed = !sums || !of_filters || !factors || !zeros || !q;
    if (failed) goto end;
#pragma omp parallel num_threads(s->threads)
    {
        if (!reserve(s, !y, 1)) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
        if (failed) goto done; /* all threads, or none */
        const float *forth = 0, *back = 0, *also_forth = 0, *also_back = 0;
        long packed = -1;
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            if (packed != mine.task) {
                forth = pack(s, filters, mine.task, 0, FORTH);
                also_forth = pack(s, hw, packed = mine.task, 0, ALSO_FORTH);
            }
            const Affine f = affine(s, mine.task, a, b, mean, var, eps);
            const float *center = eps < 0 ? zeros : mean + mine.task * n;
            double *sum = sums + k * 5 * n;
            for (long i = mine.first, some; i < mine.last; i += some) {
                some = least(together(s), mine.last - i);
                const float *here = result(s, y, x, forth, i, some), *ei = e + i * windows * n, *gi = g + i * windows * n;
                float *qi = q + i * pixels * n;
                convolve(s, 0, qi, x + i * inputs(s), some, s->in, also_forth, n, 0);
                if (hx) convolve(s, 0, qi, hx + i * inputs(s), some, s->in, forth, n, 1);
                sum_passed(s, sum, gi, ei, center, f, some * windows);
                for (long j = 0; j < some * pixels; j += FEW) for (long c = 0; c < n; c += LANES) {
                    const long last = least(j + FEW, some * pixels);
                    vec plain[CHAINS] = {0}, moment[CHAINS] = {0};
                    for (long l = j; l < last; l += CHAINS) UNROLLED(m, CHAINS) if (l + m < last) {
                        const vec value = VEC(qi + (l + m) * n + c);
                        plain[m] += value, moment[m] += value * (VEC(here + (l + m) * n + c) - VEC(center + c));
                    }
                    widen(sum + 2 * n + c, total(plain)), widen(sum + 3 * n + c, total(moment));
                }
                EACH(j, some) {
                    const long window = j * windows * n, pixel = j * pixels * n;
                    POOLED(s, meet_of, sum + 4 * n, here + pixel, ei + window, gi + window, qi + pixel, f)
                }
            }
        }
#pragma omp for schedule(static)
        for (long task = 0; task < s->tasks; task++) {
            const double *sum = joined(s, sums, task, 5 * n);
            const Affine f = affine(s, task, a, b, mean, var, eps);
            float *to = factors + task * 10 * n;
            EACH(c, n) {
                const long i = task * n + c;
                const double scale = f.scale[c], root = eps < 0 ? 1 : 1 / sqrt(var[i] + eps), mu = eps < 0 ? 0 : mean[i];
                /* means of gz, gz * yh, q, q * yh and q * gz, where yh = (y - mu) * root */
                const double m_g = sum[c] / N, m_gy = root * sum[n + c] / N;
                const double m_q = sum[2 * n + c] / N, m_qy = root * sum[3 * n + c] / N, m_qg = sum[4 * n + c] / N;
                double of_q = scale, of_y = ha[i], zero = hb[i], back_g = ha[i], back_q = 0, back_y = 0, back_zero = 0, linear = 0, constant = 0;
                if (eps < 0)
                    ga[i] = N * m_qg;
                else {
                    const double inner = m_qg - m_g * m_q - m_gy * m_qy; /* <q, gy> = scale * N * inner */
                    const double u = -scale * (m_g * m_qy + m_q * m_gy) + ha[i] * m_g, uy = -2 * scale * m_gy * m_qy + ha[i] * m_gy;
                    ga[i] = root * N * inner;
                    const double of_var = g_var ? 2 * g_var[i] / N : 0;
                    linear = -scale * root * m_gy + of_var, constant = -scale * m_g + (g_mean ? g_mean[i] : 0) / N - linear * mu;
                    of_y = root * (ha[i] - scale * m_qy), zero = hb[i] - scale * m_q - mu * of_y;
                    back_g = of_y, back_q = -root * scale * m_gy + of_var;
                    back_y = -root * root * (uy + scale * inner), back_zero = -root * u - mu * back_y - of_var * m_q;
                    if (gg_mean) gg_mean[i] = m_q, gg_var[i] = 2 * m_qy / root;
                }
                const double all[10] = {constant, linear, scale, back_zero, back_y, back_g, back_q, zero, of_y, of_q};
                EACH(k, 10) to[k * n + c] = all[k];
            }
        }
        packed = -1;
#pragma omp for schedule(dynamic)
        for (long k = 0; k < all; k++) {
            const Part mine = part(s, k);
            if (packed != mine.task) {
                if (!y) forth = pack(s, filters, mine.task, 0, FORTH);
                if (gx) also_back = pack(s, hw, mine.task, 1, ALSO_BACK);
                if (gx && !gy) back = pack(s, filters, mine.task, 1, BACK);
                packed = mine.task;
            }
            float *by = factors + mine.task * 10 * n, *to = of_filters + k * filter;
            const Affine f = affine(s, mine.task, a, b, mean, var, eps);
            for (long i = mine.first, some; i < mine.last; i += some) {
                some = least(together(s), mine.last - i);
                const float *here = result(s, y, x, forth, i, some), *qi = q + i * pixels * n, *ei = e + i * windows * n, *gi = g + i * windows * n;
                float *was = kept(GRADIENT, some * pixels * n * 4), *through = gy ? gy + i * pixels * n : was;
                EACH(j, some) {
                    const long window = j * windows * n, pixel = j * pixels * n;
                    POOLED(s, gathered_of, gg + i * windows * n + window, here + pixel, ei + window, qi + pixel, f, by + 7 * n)
                    field(s, was + pixel, here + pixel, ei + window, gi + window, 0, f, (Factors){by, by + n, by + 2 * n, 0});
                }
                if (hx) correlate(s, to, hx + i * inputs(s), was, some);
                if (gx) convolve(s, 1, gx + i * inputs(s), was, some, n, also_back, s->in, 0);
                EACH(j, some) {
                    const long window = j * windows * n, pixel = j * pixels * n;
                    const Factors factor = {by + 3 * n, by + 4 * n, by + 5 * n, by + 6 * n};
                    field(s, through + pixel, here + pixel, ei + window, gi + window, qi + pixel, f, factor);
                }
                if (gy) continue;
                correlate(s, to, x + i * inputs(s), was, some);
                if (gx) convolve(s, 1, gx + i * inputs(s), was, some, n, back, s->in, 1);
            }
        }
        join_filters(s, gw, of_filters);
    done:;
    }
end:
    free(sums), free(of_filters), free(factors), free(zeros), free(q);
    return failed;
}

/* To be increased with every change of the arguments or layouts above; loading.py has the same number and refuses another one. */
int innerloop_abi(void) { return 4; }

int innerloop_lanes(void) { return LANES; }

int innerloop_multiplies_bf16(void) { /* otherwise products are computed in float32 */
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}
