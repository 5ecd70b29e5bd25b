/* Replays the operations of a recorded gradient (plan.py) without PyTorch's overhead.

A step is one operation on strided float32 tensors. Every step has the bits of PyTorch's own operation on the CPU: the same order of additions, the same
roundings. Where PyTorch has several orders (they depend on shapes, strides and the instruction set), each of them is a code of its own, and __init__.py finds
out which one it is.

Sizes and strides count numbers, not bytes. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { RANK = 6, OPERANDS = 4 };

typedef struct {
    int64_t code, tiled;               /* steps with the same number are computed one part of the first dimension after the other; 0: as a whole */
    int64_t buffer[OPERANDS];          /* the result, then what it is computed from */
    int64_t offset[OPERANDS];
    int64_t size[RANK];                /* outermost first */
    int64_t stride[OPERANDS][RANK];
    int64_t number[3];                 /* of products and sums: see there */
} Step;

enum { /* as in plan.py */
    ADD, SUBTRACT, MULTIPLY, DIVIDE, MULTIPLY_ADD, MULTIPLY_ADD_ROUNDED, NEGATE, COPY, ABOVE, RELU, RELU_SIGNED, SIGMOID_BACK, TANH_BACK,
    PRODUCT = 32, PRODUCT_ROUNDED, PRODUCT_BY_LIBRARY, PRODUCTS_BY_LIBRARY, SUM_ROWS, SUM_ADJACENT
};

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define VEC(at) (*(vec *)(at))

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

/* -- Numbers ------------------------------------------------------------------------------------------------------------------------------------ */

/* A row of n numbers; strides that are known, 1, or 0 for one number that is used again, make it fast. */
#define LOOP(BODY, S0, S1, S2, S3)                                                                                                                     \
    _Pragma("GCC ivdep") EACH(i, n) {                                                                                                                  \
        const float a = x[i * (S1)], b = y[i * (S2)], c = z[i * (S3)];                                                                                 \
        (void)a, (void)b, (void)c;                                                                                                                     \
        out[i * (S0)] = BODY;                                                                                                                          \
    }
#define ARE(S0, S1, S2, S3) (step[0] == S0 && step[1] == S1 && step[2] == S2 && step[3] == S3)
#define NUMBERS(CODE, BODY)                                                                                                                            \
    case CODE:                                                                                                                                         \
        if (ARE(1, 1, 1, 1)) LOOP(BODY, 1, 1, 1, 1)                                                                                                    \
        else if (ARE(1, 1, 1, 0)) LOOP(BODY, 1, 1, 1, 0)                                                                                               \
        else if (ARE(1, 1, 0, 0)) LOOP(BODY, 1, 1, 0, 0)                                                                                               \
        else if (ARE(1, 0, 1, 0)) LOOP(BODY, 1, 0, 1, 0)                                                                                               \
        else if (ARE(1, 0, 0, 0)) LOOP(BODY, 1, 0, 0, 0)                                                                                               \
        else LOOP(BODY, step[0], step[1], step[2], step[3])                                                                                            \
        break;

static void row(int64_t code, float *out, const float *x, const float *y, const float *z, const int64_t *step, int64_t n) {
    switch (code) {
        NUMBERS(ADD, a + b)
        NUMBERS(SUBTRACT, a - b)
        NUMBERS(MULTIPLY, a *b)
        NUMBERS(DIVIDE, a / b)
        NUMBERS(MULTIPLY_ADD, fmaf(b, c, a))
        NUMBERS(MULTIPLY_ADD_ROUNDED, a + b * c)
        NUMBERS(NEGATE, -a)
        NUMBERS(COPY, a)
        NUMBERS(ABOVE, b <= c ? 0 : a)
        NUMBERS(RELU, a <= 0 ? 0 : a)
        NUMBERS(SIGMOID_BACK, a *(1 - b) * b)
        NUMBERS(TANH_BACK, a *(1 - b * b))
        NUMBERS(RELU_SIGNED, a < 0 ? 0 : a) /* a negative zero stays one */
    }
}

static void numbers(const Step *s, float *const *at, const int64_t *size) {
    int64_t place[RANK] = {0}, inner[OPERANDS];
    const float *p[OPERANDS];
    EACH(k, OPERANDS) {
        p[k] = at[k];
        inner[k] = s->stride[k][RANK - 1];
    }
    for (;;) {
        row(s->code, (float *)p[0], p[1], p[2], p[3], inner, size[RANK - 1]);
        int64_t d = RANK - 2;
        for (; d >= 0; d--) {
            EACH(k, OPERANDS) p[k] += s->stride[k][d];
            if (++place[d] < size[d]) break;
            EACH(k, OPERANDS) p[k] -= s->stride[k][d] * size[d];
            place[d] = 0;
        }
        if (d < 0) return;
    }
}

/* -- Products ----------------------------------------------------------------------------------------------------------------------------------- */

/* c = a b for a matrix a of m x k and b of k x n: each number is one sum, in the order of k. The columns of c are adjacent. */
typedef struct {
    int64_t m, n, k, a_row, a_column, b_row, b_column, c_row;
} Sizes;

INLINE vec multiply_add(vec sum, vec x, vec y, const int fused) {
    if (!fused) return sum + x * y;
    EACH(l, LANES) sum[l] = __builtin_fmaf(x[l], y[l], sum[l]);
    return sum;
}

/* R rows and C vectors of columns */
#define BLOCK(R, C)                                                                                                                                     \
    INLINE void block_##R##_##C(const float *a, const float *b, float *c, const Sizes *s, const int fused) {                                            \
        vec sum[R][C] = {0};                                                                                                                            \
        EACH(q, s->k) {                                                                                                                                 \
            _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) _Pragma("GCC unroll 8") for (int j = 0; j < C; j++)                                     \
                sum[r][j] = multiply_add(sum[r][j], a[r * s->a_row + q * s->a_column] - (vec){0}, VEC(b + q * s->b_row + j * LANES), fused);            \
        }                                                                                                                                               \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) _Pragma("GCC unroll 8") for (int j = 0; j < C; j++)                                         \
            VEC(c + r * s->c_row + j * LANES) = sum[r][j];                                                                                              \
    }
BLOCK(5, 2)
BLOCK(5, 1)
BLOCK(1, 2)
BLOCK(1, 1)

INLINE float multiply_add_one(float sum, float x, float y, const int fused) { return fused ? __builtin_fmaf(x, y, sum) : sum + x * y; }

/* R rows of C columns that fill no vector */
INLINE void narrow_rows(const float *a, const float *b, float *c, const Sizes *s, const int rows, const int wide, const int fused) {
    float sum[8][4] = {0};
    EACH(q, s->k)
    _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) _Pragma("GCC unroll 4") for (int j = 0; j < wide; j++)
        sum[r][j] = multiply_add_one(sum[r][j], a[r * s->a_row + q * s->a_column], b[q * s->b_row + j], fused);
    EACH(r, rows) EACH(j, wide) c[r * s->c_row + j] = sum[r][j];
}

/* C columns that fill no vector */
INLINE void narrow(const float *a, const float *b, float *c, const Sizes *s, const int wide, const int fused) {
    int64_t i = 0;
    if (s->a_row == 1 && wide == 1) { /* rows are adjacent: vectors of them */
        for (; i + LANES <= s->m; i += LANES) {
            vec sum = {0};
            EACH(q, s->k) sum = multiply_add(sum, VEC(a + i + q * s->a_column), b[q * s->b_row] - (vec){0}, fused);
            EACH(l, LANES) c[(i + l) * s->c_row] = sum[l];
        }
    }
    for (; i + 8 <= s->m; i += 8) narrow_rows(a + i * s->a_row, b, c + i * s->c_row, s, 8, wide, fused);
    for (; i < s->m; i++) narrow_rows(a + i * s->a_row, b, c + i * s->c_row, s, 1, wide, fused);
}

INLINE void columns(const float *a, const float *b, float *c, const Sizes *s, const int fused) {
    int64_t j = 0;
    for (; j + 2 * LANES <= s->n; j += 2 * LANES) {
        int64_t i = 0;
        for (; i + 5 <= s->m; i += 5) block_5_2(a + i * s->a_row, b + j, c + i * s->c_row + j, s, fused);
        for (; i < s->m; i++) block_1_2(a + i * s->a_row, b + j, c + i * s->c_row + j, s, fused);
    }
    for (; j + LANES <= s->n; j += LANES) {
        int64_t i = 0;
        for (; i + 5 <= s->m; i += 5) block_5_1(a + i * s->a_row, b + j, c + i * s->c_row + j, s, fused);
        for (; i < s->m; i++) block_1_1(a + i * s->a_row, b + j, c + i * s->c_row + j, s, fused);
    }
    for (; j + 4 <= s->n; j += 4) narrow(a, b + j, c + j, s, 4, fused);
    for (; j < s->n; j++) narrow(a, b + j, c + j, s, 1, fused);
}

/* The library that PyTorch calls: one product, and many of equal sizes. It reads matrices by columns, so that a and b change places. */
typedef void (*Single)(const char *, const char *, const int *, const int *, const int *, const float *, const float *, const int *, const float *,
                       const int *, const float *, float *, const int *);
typedef void (*Batch)(int, const int *, const int *, const int *, const int *, const int *, const float *, const float **, const int *, const float **,
                      const int *, const float *, float **, const int *, int, const int *);
static Single single;
static Batch batched;

void innerloop_libraries(void *one, void *many) {
    single = (Single)one;
    batched = (Batch)many;
}

enum { BY_COLUMNS = 102, AS_IT_IS = 111, TURNED = 112, MANY = 4096 };

static void by_library(const Step *s, float *const *at, const Sizes *z, int64_t count) {
    const int across = (int)z->n, along = (int)z->m, depth = (int)z->k, many = (int)count;
    const int a_turned = z->a_column != 1, b_turned = z->b_column != 1;
    const int wide_a = (int)(a_turned ? most(z->a_column, z->m) : most(z->a_row, z->k));
    const int wide_b = (int)(b_turned ? most(z->b_column, z->k) : most(z->b_row, z->n)), wide_c = (int)most(z->c_row, z->n);
    const float one = 1, zero = 0;
    if (s->code == PRODUCT_BY_LIBRARY) {
        EACH(i, count)
        single(b_turned ? "t" : "n", a_turned ? "t" : "n", &across, &along, &depth, &one, at[2] + i * s->stride[2][0], &wide_b,
               at[1] + i * s->stride[1][0], &wide_a, &zero, at[0] + i * s->stride[0][0], &wide_c);
        return;
    }
    const float *a[MANY], *b[MANY];
    float *c[MANY];
    const int turn_a = a_turned ? TURNED : AS_IT_IS, turn_b = b_turned ? TURNED : AS_IT_IS;
    EACH(i, count) {
        a[i] = at[1] + i * s->stride[1][0];
        b[i] = at[2] + i * s->stride[2][0];
        c[i] = at[0] + i * s->stride[0][0];
    }
    batched(BY_COLUMNS, &turn_b, &turn_a, &across, &along, &depth, &one, b, &wide_b, a, &wide_a, &zero, c, &wide_c, 1, &many);
}

/* number: m, n, k; the strides of the last two dimensions are those of rows and columns. */
static void products(const Step *s, float *const *at, int64_t batch) {
    const Sizes sizes = {s->number[0],     s->number[1],     s->number[2],     s->stride[1][1], s->stride[1][2],
                         s->stride[2][1], s->stride[2][2], s->stride[0][1]};
    if (s->code > PRODUCT_ROUNDED) {
        by_library(s, at, &sizes, batch);
        return;
    }
    EACH(i, batch) {
        const float *a = at[1] + i * s->stride[1][0], *b = at[2] + i * s->stride[2][0];
        float *c = at[0] + i * s->stride[0][0];
        s->code == PRODUCT ? columns(a, b, c, &sizes, 1) : columns(a, b, c, &sizes, 0);
    }
}

/* -- Sums --------------------------------------------------------------------------------------------------------------------------------------- */

enum { LEVELS = 4, WIDE = 64 };

/* Sums of `size` rows for some neighboring columns, in levels: the sum of every 16 rows (more for very many) is added to the next level. */
INLINE void cascade(const float *in, int64_t row, int64_t column, int64_t size, const int64_t wide, float *sums) {
    float level[LEVELS][WIDE];
    int64_t power = 0, i = 0;
    while (((int64_t)1 << power) < size) power++;
    power = power / LEVELS < 4 ? 4 : power / LEVELS;
    const int64_t step = (int64_t)1 << power;
    memset(level, 0, sizeof level);
    while (i + step <= size) {
        EACH(j, step) {
            EACH(c, wide) level[0][c] += in[i * row + c * column];
            i++;
        }
        for (int64_t l = 1; l < LEVELS; l++) {
            EACH(c, wide) {
                level[l][c] += level[l - 1][c];
                level[l - 1][c] = 0;
            }
            if (i & ((step - 1) << (l * power))) break;
        }
    }
    for (; i < size; i++) EACH(c, wide) level[0][c] += in[i * row + c * column];
    EACH(c, wide) sums[c] = level[0][c] + level[1][c] + level[2][c] + level[3][c];
}

/* The same as four interleaved sums of rows, then their sum. */
INLINE void interleaved(const float *in, int64_t row, int64_t column, int64_t size, const int64_t wide, float *sums) {
    float part[4][WIDE];
    EACH(k, 4) cascade(in + k * row, 4 * row, column, size / 4, wide, part[k]);
    for (int64_t i = size / 4 * 4; i < size; i++) EACH(c, wide) part[0][c] += in[i * row + c * column];
    EACH(c, wide) sums[c] = part[0][c] + part[1][c] + part[2][c] + part[3][c];
}

/* Added to each of the columns: the sum of its rows. The first `straight` columns by `cascade`, the others by `interleaved`. */
static void sum_rows(const float *in, int64_t row, int64_t column, float *out, int64_t stride, int64_t rows, int64_t columns, int64_t straight) {
    float sums[WIDE];
    for (int64_t j = 0, wide; j < columns; j += wide) {
        const float *at = in + j * column;
        wide = least((j < straight ? straight : columns) - j, WIDE);
        if (wide >= 16) wide = wide >= 32 ? 32 : 16;
        else if (wide >= 8) wide = 8;
        if (column == 1 && wide == 32) j < straight ? cascade(at, row, 1, rows, 32, sums) : interleaved(at, row, 1, rows, 32, sums);
        else if (column == 1 && wide == 16) j < straight ? cascade(at, row, 1, rows, 16, sums) : interleaved(at, row, 1, rows, 16, sums);
        else if (column == 1 && wide == 8) j < straight ? cascade(at, row, 1, rows, 8, sums) : interleaved(at, row, 1, rows, 8, sums);
        else j < straight ? cascade(at, row, column, rows, wide, sums) : interleaved(at, row, column, rows, wide, sums);
        EACH(c, wide) out[(j + c) * stride] += sums[c];
    }
}

/* The same for rows that are adjacent: `width` of them at once. */
static void sum_adjacent(const float *in, int64_t column, float *out, int64_t stride, int64_t rows, int64_t columns, int64_t width) {
    float sums[WIDE];
    EACH(j, columns) {
        const float *at = in + j * column;
        float sum = 0;
        interleaved(at, width, 1, rows / width, width, sums);
        for (int64_t i = rows / width * width; i < rows; i++) sum += at[i];
        EACH(c, width) sum += sums[c];
        out[j * stride] += sum;
    }
}

/* The last dimension are the rows that are added, the one before it the columns; number: what the kernel needs. Other dimensions are looped over. */
static void sums(const Step *s, float *const *at, const int64_t *size) {
    const int64_t *from = s->stride[1], *to = s->stride[0], rows = size[RANK - 1], columns = size[RANK - 2];
    int64_t place[RANK] = {0}, d;
    float *out = at[0];
    const float *in = at[1];
    do {
        if (s->code == SUM_ROWS)
            sum_rows(in, from[RANK - 1], from[RANK - 2], out, to[RANK - 2], rows, columns, s->number[0]);
        else
            sum_adjacent(in, from[RANK - 2], out, to[RANK - 2], rows, columns, s->number[0]);
        for (d = RANK - 3; d >= 0; d--) {
            out += to[d];
            in += from[d];
            if (++place[d] < size[d]) break;
            out -= to[d] * size[d];
            in -= from[d] * size[d];
            place[d] = 0;
        }
    } while (d >= 0);
}

/* -- Steps -------------------------------------------------------------------------------------------------------------------------------------- */

/* The part of a step from `first` to `last` of its outermost dimension. */
static void part(const Step *s, float *const *buffers, int64_t first, int64_t last) {
    float *at[OPERANDS];
    int64_t size[RANK];
    memcpy(size, s->size, sizeof size);
    size[0] = last - first;
    EACH(k, OPERANDS) at[k] = buffers[s->buffer[k]] + s->offset[k] + first * s->stride[k][0];
    if (s->code < PRODUCT)
        numbers(s, at, size);
    else if (s->code < SUM_ROWS)
        products(s, at, size[0]);
    else
        sums(s, at, size);
}

int innerloop_abi(void) { return 1; } /* as in __init__.py */

/* Steps in their order. Neighbors with the same number of `tiled` are computed together, one tile after the other, so that what they hand on stays in the
cache, and tiles are shared by the threads. */
void innerloop_replay(const Step *steps, int64_t count, float *const *buffers, int64_t tiles, int64_t threads) {
    for (int64_t i = 0; i < count;) {
        if (!steps[i].tiled) {
            part(steps + i, buffers, 0, steps[i].size[0]);
            i++;
            continue;
        }
        int64_t end = i;
        while (end < count && steps[end].tiled == steps[i].tiled) end++;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        EACH(t, tiles)
        for (int64_t j = i; j < end; j++) part(steps + j, buffers, t, t + 1);
        i = end;
    }
}
