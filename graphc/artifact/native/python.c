/* The short way from CPython into a module: a call that gets NumPy arrays of the right types and of shapes that it has
 * had before goes to graphc_run from here; any other goes to `slow`, the general way written in Python.
 *
 * Nothing of Python is needed to build or to load a module: the functions below, all of CPython's stable ABI, are
 * looked up in the running process. The one thing read directly is the front of an ndarray, a layout that NumPy keeps
 * as its own ABI; graphc/artifact/quick.py compares what is read with what NumPy says before it binds anything, and
 * keeps interpreters without a GIL, subinterpreters and other Pythons out. Everything here runs with the GIL held.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef struct object { /* PyObject where there is a GIL */
    intptr_t references;
    const void *type;
} object;

typedef struct ndarray { /* PyArrayObject_fields */
    object head;
    void *data;
    int nd;
    const intptr_t *dimensions, *strides;
    object *base, *descr;
    int flags;
} ndarray;

enum { CONTIGUOUS = 0x0001, WRITEABLE = 0x0400 }; /* NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE */
enum { VARARGS_KEYWORDS = 0x0001 | 0x0002 };      /* METH_VARARGS | METH_KEYWORDS */
enum { PLANS = 16 /* as in quick.py */, SPARE = 32, MAX_TENSORS = 1024 };

typedef object *(*method)(object *self, object *args, object *keywords);
typedef struct definition { /* PyMethodDef */
    const char *name;
    method call;
    int flags;
    const char *doc;
} definition;

#define PYTHON(X)                                                         \
    X(void, Py_IncRef, (object *))                                        \
    X(void, Py_DecRef, (object *))                                        \
    X(intptr_t, PyTuple_Size, (object *))                                 \
    X(object *, PyTuple_GetItem, (object *, intptr_t))                    \
    X(intptr_t, PyList_Size, (object *))                                  \
    X(object *, PyList_GetItem, (object *, intptr_t))                     \
    X(object *, PyDict_New, (void))                                       \
    X(intptr_t, PyDict_Size, (object *))                                  \
    X(object *, PyDict_GetItemWithError, (object *, object *))            \
    X(int, PyDict_SetItem, (object *, object *, object *))                \
    X(object *, PyObject_Call, (object *, object *, object *))            \
    X(object *, PyObject_CallObject, (object *, object *))                \
    X(object *, PyObject_CallFunction, (object *, const char *, ...))     \
    X(object *, PyCFunction_NewEx, (definition *, object *, object *))    \
    X(object *, PyCapsule_New, (void *, const char *, void (*)(object *))) \
    X(void *, PyCapsule_GetPointer, (object *, const char *))             \
    X(void, PyErr_Clear, (void))                                          \
    X(object *, PyErr_NoMemory, (void))                                   \
    X(void *, PyEval_SaveThread, (void))                                  \
    X(void, PyEval_RestoreThread, (void *))

#define FIELD(result, name, arguments) result(*name) arguments;
static struct {
    PYTHON(FIELD)
} py;

/* What is known about calls with certain input shapes. */
typedef struct output {
    object *name, *refill; /* refill() gives a list of new arrays */
    ndarray *spare[SPARE];
    int n_spare;
} output;

typedef struct plan {
    size_t users; /* the table and the calls that run */
    graphc_model *model;
    object *owner, *check; /* what keeps the model open; check(status) raises the error of a call that failed */
    int brief;             /* the GIL is kept: to give it away would take a part of the time that counts */
    output *outputs;
    graphc_tensor tensors[]; /* inputs, then outputs */
} plan;

typedef struct caller {
    size_t n_in, n_out;
    const void *ndarray;
    object *slow, *names, *dtypes, *out_names; /* names and dtypes: tuples */
    plan *plans[PLANS];
    size_t next;
    int need[]; /* flags that each input must have */
} caller;

static const char NAME[] = "graphc.caller";

static void let_go(object *x) {
    if (x) py.Py_DecRef(x);
}

static void release(const caller *c, plan *p) {
    if (--p->users) return;
    for (size_t i = 0; i < c->n_out; i++) {
        while (p->outputs[i].n_spare) py.Py_DecRef((object *)p->outputs[i].spare[--p->outputs[i].n_spare]);
        let_go(p->outputs[i].refill);
    }
    let_go(p->check);
    let_go(p->owner);
    free(p->outputs);
    free(p);
}

static void forget(object *capsule) {
    caller *c = py.PyCapsule_GetPointer(capsule, NAME);
    for (size_t i = 0; c && i < PLANS; i++) {
        plan *p = c->plans[i];
        c->plans[i] = NULL; /* first: letting go of Python objects may run anything */
        if (p) release(c, p);
    }
}

static void destroy(object *capsule) {
    forget(capsule);
    caller *c = py.PyCapsule_GetPointer(capsule, NAME);
    let_go(c->slow);
    let_go(c->names);
    let_go(c->dtypes);
    let_go(c->out_names);
    free(c);
}

static int fits(const plan *p, ndarray *const *arrays, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const graphc_tensor *t = &p->tensors[i];
        if (arrays[i]->nd != t->rank) return 0;
        for (int d = 0; d < t->rank; d++)
            if (arrays[i]->dimensions[d] != t->shape[d]) return 0;
    }
    return 1;
}

/* The next array for an output, a new reference, or NULL with an exception. */
static ndarray *take(output *o) {
    if (!o->n_spare) {
        object *list = py.PyObject_CallObject(o->refill, NULL);
        if (!list) return NULL;
        intptr_t n = py.PyList_Size(list);
        for (intptr_t i = 0; i < n && o->n_spare < SPARE; i++) { /* another thread may have filled it meanwhile */
            object *array = py.PyList_GetItem(list, i);
            py.Py_IncRef(array);
            o->spare[o->n_spare++] = (ndarray *)array;
        }
        py.Py_DecRef(list);
        if (!o->n_spare) return (ndarray *)py.PyErr_NoMemory();
    }
    return o->spare[--o->n_spare];
}

/* Runs with arrays that fit: a dict of the outputs, or NULL with an exception. */
static object *run(const caller *c, plan *p, ndarray *const *arrays) {
    const size_t n_in = c->n_in, n_out = c->n_out;
    graphc_tensor tensors[n_in + n_out + 1];
    memcpy(tensors, p->tensors, (n_in + n_out) * sizeof *tensors);
    for (size_t i = 0; i < n_in; i++) tensors[i].data = arrays[i]->data;
    object *results = py.PyDict_New();
    for (size_t i = 0; results && i < n_out; i++) {
        ndarray *made = take(&p->outputs[i]);
        int failed = !made || py.PyDict_SetItem(results, p->outputs[i].name, &made->head);
        if (made) tensors[n_in + i].data = made->data;
        let_go((object *)made); /* the dict has it */
        if (!failed) continue;
        py.Py_DecRef(results);
        results = NULL;
    }
    if (!results) return NULL;
    void *thread = p->brief ? NULL : py.PyEval_SaveThread();
    int status = graphc_run(p->model, tensors, n_in, tensors + n_in, n_out);
    if (thread) py.PyEval_RestoreThread(thread);
    if (!status) return results;
    py.Py_DecRef(results);
    let_go(py.PyObject_CallFunction(p->check, "i", status)); /* it raises */
    return NULL;
}

static object *call(object *self, object *args, object *keywords) {
    caller *c = py.PyCapsule_GetPointer(self, NAME);
    if (!c) return NULL;
    const size_t n = c->n_in, n_args = (size_t)py.PyTuple_Size(args);
    ndarray *arrays[n + 1];
    plan *p = NULL;
    if (n_args + (keywords ? (size_t)py.PyDict_Size(keywords) : 0) != n) goto slow;
    for (size_t i = 0; i < n; i++) {
        object *x = i < n_args ? py.PyTuple_GetItem(args, (intptr_t)i)
                               : py.PyDict_GetItemWithError(keywords, py.PyTuple_GetItem(c->names, (intptr_t)i));
        if (!x) {
            py.PyErr_Clear();
            goto slow;
        }
        arrays[i] = (ndarray *)x;
        if (x->type != c->ndarray || arrays[i]->descr != py.PyTuple_GetItem(c->dtypes, (intptr_t)i) ||
            (arrays[i]->flags & c->need[i]) != c->need[i])
            goto slow;
    }
    for (size_t i = 0; !p && i < PLANS && c->plans[i]; i++)
        if (fits(c->plans[i], arrays, n)) p = c->plans[i];
    if (!p) goto slow;
    p->users++;
    for (size_t i = 0; i < n; i++) py.Py_IncRef(&arrays[i]->head);
    object *results = run(c, p, arrays);
    for (size_t i = 0; i < n; i++) py.Py_DecRef(&arrays[i]->head);
    release(c, p);
    return results;
slow:
    return py.PyObject_Call(c->slow, args, keywords);
}

static definition CALL = {"__call__", call, VARARGS_KEYWORDS,
                          "Runs the model on inputs by name or by position; see graphc.artifact.Module.run."};

static int find_python(void) {
#define FIND(result, name, arguments) \
    if (!py.name && !(py.name = (result(*) arguments)dlsym(RTLD_DEFAULT, #name))) return 0;
    PYTHON(FIND)
    return 1;
}

/* A capsule for `function` and `remember`, or NULL without an exception where there is no such Python. */
static object *prepare(const void *ndarray, object *slow, object *names, object *dtypes, object *out_names) {
    const graphc_info *info = &graphc_module_tables.info;
    if (info->n_inputs + info->n_outputs > MAX_TENSORS || !find_python()) return NULL;
    caller *c = calloc(1, sizeof *c + info->n_inputs * sizeof c->need[0]);
    if (!c) return py.PyErr_NoMemory();
    c->n_in = info->n_inputs;
    c->n_out = info->n_outputs;
    c->ndarray = ndarray;
    for (size_t i = 0; i < c->n_in; i++) c->need[i] = CONTIGUOUS | (info->inputs[i].state ? WRITEABLE : 0);
    object *capsule = py.PyCapsule_New(c, NAME, destroy);
    if (!capsule) {
        free(c);
        return NULL;
    }
    py.Py_IncRef(c->slow = slow);
    py.Py_IncRef(c->names = names);
    py.Py_IncRef(c->dtypes = dtypes);
    py.Py_IncRef(c->out_names = out_names);
    return capsule;
}

static object *function(object *capsule) { return py.PyCFunction_NewEx(&CALL, capsule, NULL); }

/* From now on calls with these input shapes take the short way. `inputs` and `outputs` are as graphc_run takes them but
 * for the data; `refills` is a tuple. Without memory for it, they go on as before. */
static void remember(object *capsule, graphc_model *model, const graphc_tensor *inputs, const graphc_tensor *outputs,
                     object *owner, object *check, object *refills, int brief) {
    caller *c = py.PyCapsule_GetPointer(capsule, NAME);
    if (!c) return;
    plan *p = calloc(1, sizeof *p + (c->n_in + c->n_out) * sizeof p->tensors[0]);
    if (!p || !(p->outputs = calloc(c->n_out + 1, sizeof *p->outputs))) {
        free(p);
        return;
    }
    memcpy(p->tensors, inputs, c->n_in * sizeof *inputs);
    memcpy(p->tensors + c->n_in, outputs, c->n_out * sizeof *outputs);
    p->users = 1;
    p->model = model;
    p->brief = brief;
    py.Py_IncRef(p->owner = owner);
    py.Py_IncRef(p->check = check);
    for (size_t i = 0; i < c->n_out; i++) {
        p->outputs[i].name = py.PyTuple_GetItem(c->out_names, (intptr_t)i);
        py.Py_IncRef(p->outputs[i].refill = py.PyTuple_GetItem(refills, (intptr_t)i));
    }
    plan *old = c->plans[c->next];
    c->plans[c->next] = p;
    c->next = (c->next + 1) % PLANS;
    if (old) release(c, old);
}

/* What is read of an array: type, data, nd, dimensions, descr, flags. */
static void look(const ndarray *x, int64_t seen[6]) {
    seen[0] = (int64_t)(uintptr_t)x->head.type;
    seen[1] = (int64_t)(uintptr_t)x->data;
    seen[2] = x->nd;
    seen[3] = (int64_t)(uintptr_t)x->dimensions;
    seen[4] = (int64_t)(uintptr_t)x->descr;
    seen[5] = x->flags;
}

static const struct {
    size_t size; /* of this struct */
    object *(*prepare)(const void *, object *, object *, object *, object *);
    object *(*function)(object *);
    void (*remember)(object *, graphc_model *, const graphc_tensor *, const graphc_tensor *, object *, object *,
                     object *, int);
    void (*forget)(object *);
    void (*look)(const ndarray *, int64_t *);
} TABLE = {sizeof TABLE, prepare, function, remember, forget, look};

GRAPHC_API const void *graphc_python(void) { return &TABLE; }
