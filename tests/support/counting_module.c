/* A PKCS#11 module that passes everything on to another one and has a monotonic counter besides, as
 * section 4.3.3 of PKCS#11 2.40 describes it: reading the value moves it. SoftHSM2 has none.
 *
 * COUNTING_MODULE names the other module, COUNTING_FILE a file with three numbers: what the counter
 * shows, by how much a reading moves it, and whether it was reset. Without the file there is none.
 * COUNTING_THREADS, where it is set, names a file that lists the thread of every call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef struct { ulong_t type; void *value; ulong_t length; } attribute_t;
/* A version of two bytes, then the functions in the order of the standard. */
typedef struct { unsigned char version[2]; void *functions[68]; } list_t;

enum { INITIALIZE = 0, FINALIZE = 1, OPEN_SESSION = 12, LOGIN = 18, ENCRYPT = 30, SIGN = 43 };
enum { GET_FUNCTION_LIST = 3, GET_ATTRIBUTE_VALUE = 24, FIND_INIT = 26, FIND = 27, FIND_FINAL = 28 };
enum { CLASS = 0x0, VALUE = 0x11, HW_FEATURE_TYPE = 0x300, RESET_ON_INIT = 0x301, HAS_RESET = 0x302 };
enum { CKO_HW_FEATURE = 5, CKH_MONOTONIC_COUNTER = 1, ATTRIBUTE_TYPE_INVALID = 0x12 };
#define HANDLE 0xC0DEul
#define VALUE_BYTES 20

typedef ulong_t (*get_t)(ulong_t, ulong_t, attribute_t *, ulong_t);
typedef ulong_t (*init_t)(ulong_t, attribute_t *, ulong_t);
typedef ulong_t (*find_t)(ulong_t, ulong_t *, ulong_t, ulong_t *);
typedef ulong_t (*final_t)(ulong_t);

static list_t *inner, outer;
static int searching, found;

static void note(void) {
    FILE *file = getenv("COUNTING_THREADS") ? fopen(getenv("COUNTING_THREADS"), "a") : NULL;
    if (!file) return;
    fprintf(file, "%d\n", gettid());
    fclose(file);
}

#define NOTED(name, place, parameters, arguments) \
    static ulong_t name parameters { \
        note(); \
        return ((ulong_t(*) parameters)inner->functions[place])arguments; \
    }
NOTED(initialize, INITIALIZE, (void *a), (a))
NOTED(finalize, FINALIZE, (void *a), (a))
NOTED(open_session, OPEN_SESSION, (ulong_t a, ulong_t b, void *c, void *d, void *e), (a, b, c, d, e))
NOTED(login, LOGIN, (ulong_t a, ulong_t b, void *c, ulong_t d), (a, b, c, d))
NOTED(encrypt, ENCRYPT, (ulong_t a, void *b, ulong_t c, void *d, void *e), (a, b, c, d, e))
NOTED(sign, SIGN, (ulong_t a, void *b, ulong_t c, void *d, void *e), (a, b, c, d, e))

static int load(ulong_t *shown, ulong_t *step, ulong_t *reset) {
    FILE *file = fopen(getenv("COUNTING_FILE"), "r");
    if (!file) return 0;
    int read = fscanf(file, "%lu %lu %lu", shown, step, reset);
    fclose(file);
    return read == 3;
}

static ulong_t moved(void) {
    ulong_t shown = 0, step = 0, reset = 0;
    load(&shown, &step, &reset);
    FILE *file = fopen(getenv("COUNTING_FILE"), "w");
    fprintf(file, "%lu %lu %lu\n", shown + step, step, reset);
    fclose(file);
    return shown + step;
}

static ulong_t give(attribute_t *to, const void *from, ulong_t length) {
    if (to->value) memcpy(to->value, from, length);
    to->length = length;
    return 0;
}

static ulong_t give_value(attribute_t *to) {
    unsigned char bytes[VALUE_BYTES] = {0};
    ulong_t shown = to->value ? moved() : 0;
    for (int place = 0; place < 8; place++) bytes[VALUE_BYTES - 1 - place] = shown >> 8 * place;
    return give(to, bytes, VALUE_BYTES);
}

static ulong_t give_attribute(attribute_t *to) {
    ulong_t class = CKO_HW_FEATURE, type = CKH_MONOTONIC_COUNTER, shown, step, reset = 0;
    load(&shown, &step, &reset);
    unsigned char flag = to->type == HAS_RESET && reset;
    switch (to->type) {
    case CLASS: return give(to, &class, sizeof class);
    case HW_FEATURE_TYPE: return give(to, &type, sizeof type);
    case HAS_RESET: case RESET_ON_INIT: return give(to, &flag, 1);
    case VALUE: return give_value(to);
    default: to->length = (ulong_t)-1; return ATTRIBUTE_TYPE_INVALID;
    }
}

static ulong_t get(ulong_t session, ulong_t object, attribute_t *attributes, ulong_t count) {
    note();
    if (object != HANDLE) return ((get_t)inner->functions[GET_ATTRIBUTE_VALUE])(session, object, attributes, count);
    ulong_t worst = 0;
    for (ulong_t place = 0; place < count; place++) {
        ulong_t met = give_attribute(&attributes[place]);
        worst = met ? met : worst;
    }
    return worst;
}

static ulong_t find_init(ulong_t session, attribute_t *attributes, ulong_t count) {
    note();
    for (ulong_t place = 0; place < count; place++)
        if (attributes[place].type == CLASS && *(ulong_t *)attributes[place].value == CKO_HW_FEATURE) {
            ulong_t shown, step, reset;
            searching = 1;
            found = !load(&shown, &step, &reset);
            return 0;
        }
    return ((init_t)inner->functions[FIND_INIT])(session, attributes, count);
}

static ulong_t find(ulong_t session, ulong_t *objects, ulong_t most, ulong_t *count) {
    if (!searching) return ((find_t)inner->functions[FIND])(session, objects, most, count);
    *count = !found && most > 0;
    if (*count) objects[0] = HANDLE;
    found = 1;
    return 0;
}

static ulong_t find_final(ulong_t session) {
    if (!searching) return ((final_t)inner->functions[FIND_FINAL])(session);
    searching = 0;
    return 0;
}

ulong_t C_GetFunctionList(list_t **list) {
    if (!inner) {
        void *library = dlopen(getenv("COUNTING_MODULE"), RTLD_NOW);
        ulong_t (*get_list)(list_t **) = library ? (ulong_t(*)(list_t **))dlsym(library, "C_GetFunctionList") : NULL;
        if (!get_list || get_list(&inner)) return 5;
        outer = *inner;
        outer.functions[INITIALIZE] = initialize;
        outer.functions[FINALIZE] = finalize;
        outer.functions[OPEN_SESSION] = open_session;
        outer.functions[LOGIN] = login;
        outer.functions[ENCRYPT] = encrypt;
        outer.functions[SIGN] = sign;
        outer.functions[GET_FUNCTION_LIST] = C_GetFunctionList;
        outer.functions[GET_ATTRIBUTE_VALUE] = get;
        outer.functions[FIND_INIT] = find_init;
        outer.functions[FIND] = find;
        outer.functions[FIND_FINAL] = find_final;
    }
    *list = &outer;
    return 0;
}
