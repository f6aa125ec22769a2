/* The door of a module: finds each input by name or position, checks its type, solves the named dims from the shapes,
 * and says what is wrong in words that name the input, the axis, both shapes and where a dim was first bound.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} DTYPES[] = {{"f64", 8}, {"f32", 4}, {"f16", 2}, {"bf16", 2}, {"i64", 8},
              {"i32", 4}, {"i16", 2}, {"i8", 1},  {"u8", 1},   {"bool", 1}};

typedef struct text {
    char at[512];
    size_t used;
} text;

static void put(text *t, const char *s) {
    size_t room = sizeof t->at - 1 - t->used, n = strlen(s);
    if (n > room) n = room;
    memcpy(t->at + t->used, s, n);
    t->used += n;
    t->at[t->used] = 0;
}

static void put_number(text *t, int64_t value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    put(t, digits);
}

/* "f32[2, 1, 28, 28]" */
static text given(const graphc_tensor *x) {
    text t = {.used = 0};
    put(&t, DTYPES[x->dtype].name);
    put(&t, "[");
    for (int i = 0; i < x->rank; i++) {
        if (i) put(&t, ", ");
        put_number(&t, x->shape[i]);
    }
    put(&t, "]");
    return t;
}

/* "f32[N, 1, 28, 28]" */
static text expected(const graphc_port *p) {
    text t = {.used = 0};
    put(&t, DTYPES[p->dtype].name);
    put(&t, "[");
    for (int i = 0; i < p->rank; i++) {
        if (i) put(&t, ", ");
        put(&t, p->axes[i]);
    }
    put(&t, "]");
    return t;
}

int graphc_evaluate(graphc_expr code, const int64_t *dims, int64_t *value) {
    int64_t stack[GRAPHC_EXPR_DEPTH], a, b, r = 0;
    int top = 0;
    for (; *code != GRAPHC_END; code += 2) {
        if (*code == GRAPHC_CONST) {
            stack[top++] = code[1];
            continue;
        }
        if (*code == GRAPHC_DIM) {
            stack[top++] = dims[code[1]];
            continue;
        }
        b = stack[--top];
        a = stack[--top];
        if (*code == GRAPHC_ADD) {
            if (__builtin_add_overflow(a, b, &r)) return 0;
        } else if (*code == GRAPHC_MUL) {
            if (__builtin_mul_overflow(a, b, &r)) return 0;
        } else {
            if (b == 0 || (b == -1 && a == INT64_MIN)) return 0;
            r = a / b - (a % b != 0 && (a < 0) != (b < 0));
        }
        stack[top++] = r;
    }
    *value = stack[0];
    return 1;
}

/* Dense size in bytes; 0 when it does not fit into 62 bits or an extent is negative. */
static int dense_bytes(int32_t dtype, int32_t rank, const int64_t *shape, size_t *bytes) {
    int64_t n = (int64_t)DTYPES[dtype].bytes;
    int empty = 0;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) return 0;
        if (shape[i] == 0) empty = 1;
        else if (__builtin_mul_overflow(n, shape[i], &n) || n > INT64_MAX / 2) return 0;
    }
    *bytes = empty ? 0 : (size_t)n;
    return 1;
}

int graphc_find_port(const graphc_port *ports, size_t n, const char *name, size_t position) {
    if (!name) return position < n ? (int)position : -1;
    for (size_t i = 0; i < n; i++) /* the usual case: in order */
        if (!strcmp(ports[(position + i) % n].name, name)) return (int)((position + i) % n);
    return -1;
}

static int check_type(const graphc_port *p, const graphc_tensor *x, size_t *bytes) {
    if (x->dtype < 0 || x->dtype > GRAPHC_BOOL)
        return graphc_fail(GRAPHC_ERROR_DTYPE, "input `%s` has dtype %d, which is no graphc_dtype", p->name,
                           (int)x->dtype);
    if (x->rank < 0 || x->rank > GRAPHC_MAX_RANK)
        return graphc_fail(GRAPHC_ERROR_SHAPE, "input `%s` has rank %d; 0 to %d are possible", p->name, (int)x->rank,
                           GRAPHC_MAX_RANK);
    if (x->dtype != p->dtype)
        return graphc_fail(GRAPHC_ERROR_DTYPE, "input `%s` is %s, expected %s", p->name, given(x).at, expected(p).at);
    if (x->rank != p->rank)
        return graphc_fail(GRAPHC_ERROR_SHAPE, "input `%s` is %s, expected %s: it has %d axes instead of %d", p->name,
                           given(x).at, expected(p).at, (int)x->rank, (int)p->rank);
    if (!dense_bytes(x->dtype, x->rank, x->shape, bytes))
        return graphc_fail(GRAPHC_ERROR_SHAPE, "input `%s` is %s: no tensor can have that shape", p->name,
                           given(x).at);
    if (x->bytes && x->bytes < *bytes)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "input `%s` is %s and needs %zu bytes, but its buffer has %zu",
                           p->name, given(x).at, *bytes, x->bytes);
    return GRAPHC_OK;
}

static int mentions(graphc_expr code, int64_t dim) {
    for (; *code != GRAPHC_END; code += 2)
        if (*code == GRAPHC_DIM && code[1] == dim) return 1;
    return 0;
}

/* "; N = 2 comes from axis 0 of `image`" for each dim that the step depends on. */
static text bindings(const graphc_step *step, const int64_t *dims, const graphc_step *const *bound) {
    const graphc_tables *t = &graphc_module_tables;
    text out = {.used = 0};
    for (size_t d = 0; d < t->info.n_dims; d++) {
        const graphc_step *s = bound[d];
        if (!s || !(mentions(step->coefficient, (int64_t)d) || mentions(step->rest, (int64_t)d))) continue;
        put(&out, out.used ? ", " : "; ");
        put(&out, t->info.dims[d].name);
        put(&out, " = ");
        put_number(&out, dims[d]);
        put(&out, " comes from axis ");
        put_number(&out, s->axis);
        put(&out, " of `");
        put(&out, t->info.inputs[s->input].name);
        put(&out, "`");
    }
    return out;
}

static int bind_dim(const graphc_step *s, const graphc_tensor *x, int64_t *dims, const graphc_step **bound) {
    const graphc_port *p = &graphc_module_tables.info.inputs[s->input];
    const graphc_dim *d = &graphc_module_tables.info.dims[s->dim];
    int64_t size = x->shape[s->axis], scale, rest;
    int fits = graphc_evaluate(s->coefficient, dims, &scale) && graphc_evaluate(s->rest, dims, &rest) && scale != 0 &&
               !__builtin_sub_overflow(size, rest, &size) && !(scale == -1 && size == INT64_MIN) && size % scale == 0;
    if (!fits)
        return graphc_fail(GRAPHC_ERROR_SHAPE,
                           "input `%s` is %s, expected %s: axis %d is %lld, which is not `%s` for any whole %s%s",
                           p->name, given(x).at, expected(p).at, (int)s->axis, (long long)x->shape[s->axis],
                           p->axes[s->axis], d->name, bindings(s, dims, bound).at);
    int64_t value = dims[s->dim] = size / scale;
    bound[s->dim] = s;
    if (value < d->low || (d->high >= 0 && value > d->high)) {
        text limit = {.used = 0};
        put(&limit, value < d->low ? "at least " : "at most ");
        put_number(&limit, value < d->low ? d->low : d->high);
        return graphc_fail(GRAPHC_ERROR_SHAPE, "input `%s` is %s, expected %s: axis %d makes %s = %lld, but %s is %s",
                           p->name, given(x).at, expected(p).at, (int)s->axis, d->name, (long long)value, d->name,
                           limit.at);
    }
    return GRAPHC_OK;
}

static int check_axis(const graphc_step *s, const graphc_tensor *x, int64_t *dims, const graphc_step **bound) {
    const graphc_port *p = &graphc_module_tables.info.inputs[s->input];
    int64_t want;
    if (!graphc_evaluate(s->rest, dims, &want))
        return graphc_fail(GRAPHC_ERROR_SHAPE, "axis %d of input `%s` cannot be computed: the sizes are too large",
                           (int)s->axis, p->name);
    if (want == x->shape[s->axis]) return GRAPHC_OK;
    return graphc_fail(GRAPHC_ERROR_SHAPE, "input `%s` is %s, expected %s: axis %d must be %lld, not %lld%s", p->name,
                       given(x).at, expected(p).at, (int)s->axis, (long long)want, (long long)x->shape[s->axis],
                       bindings(s, dims, bound).at);
}

int graphc_bind_inputs(const graphc_tensor *inputs, size_t n, const graphc_tensor **found, size_t *bytes,
                       int64_t *dims) {
    const graphc_tables *t = &graphc_module_tables;
    const graphc_step *bound[t->info.n_dims + 1];
    memset(bound, 0, sizeof bound);
    for (size_t i = 0; i < t->info.n_inputs; i++) found[i] = NULL;
    for (size_t i = 0; i < n; i++) {
        int at = graphc_find_port(t->info.inputs, t->info.n_inputs, inputs[i].name, i);
        if (at < 0 && inputs[i].name)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` has no input `%s`", t->info.name, inputs[i].name);
        if (at < 0)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` has %zu inputs, %zu were given", t->info.name,
                               t->info.n_inputs, n);
        if (found[at])
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "input `%s` was given twice", t->info.inputs[at].name);
        found[at] = &inputs[i];
    }
    for (size_t i = 0; i < t->info.n_inputs; i++) {
        if (!found[i]) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "input `%s` is missing", t->info.inputs[i].name);
        int status = check_type(&t->info.inputs[i], found[i], &bytes[i]);
        if (status) return status;
    }
    for (const graphc_step *s = t->steps; s < t->steps + t->n_steps; s++) {
        int status = (s->dim >= 0 ? bind_dim : check_axis)(s, found[s->input], dims, bound);
        if (status) return status;
    }
    return GRAPHC_OK;
}

int graphc_describe_output(size_t index, const int64_t *dims, graphc_tensor *out) {
    const graphc_tables *t = &graphc_module_tables;
    const graphc_port *p = &t->info.outputs[index];
    out->name = p->name;
    out->dtype = p->dtype;
    out->rank = p->rank;
    for (int i = 0; i < p->rank; i++)
        if (!graphc_evaluate(t->output_axes[index][i], dims, &out->shape[i])) out->shape[i] = -1;
    if (dense_bytes(out->dtype, out->rank, out->shape, &out->bytes)) return GRAPHC_OK;
    return graphc_fail(GRAPHC_ERROR_SHAPE, "output `%s` would be %s: no tensor can have that shape", p->name,
                       given(out).at);
}
