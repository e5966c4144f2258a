/* Processes: what a program image says of itself when it starts and ends, and how tracing goes along through exec.
 * Part of preload.c.
 */

static const char *value_in(char *const environment[], const char *name) {
    size_t length = strlen(name);
    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

static size_t read_file(const char *path, char *into, size_t room) {
    long descriptor = SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    size_t total = 0;
    if (descriptor < 0)
        return 0;
    while (total < room) {
        long got = SYS(SYS_read, (int)descriptor, into + total, room - total);
        if (got <= 0)
            break;
        total += (size_t)got;
    }
    SYS(SYS_close, (int)descriptor);
    return total;
}

/* The dynamic loader an ELF image asks for; NULL when it asks for none or is not of our machine. */
static const char *loader_of(char *image, size_t bytes) {
    const Elf64_Ehdr *elf = (const void *)image;
    if (bytes < sizeof *elf || memcmp(image, ELFMAG, SELFMAG) != 0 || elf->e_ident[EI_CLASS] != ELFCLASS64)
        return NULL;
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        uint64_t at = elf->e_phoff + (uint64_t)i * elf->e_phentsize;
        if (at + sizeof(Elf64_Phdr) > bytes)
            return NULL;
        const Elf64_Phdr *part = (const void *)(image + at);
        if (part->p_type == PT_INTERP && part->p_offset + part->p_filesz <= bytes && part->p_filesz) {
            image[part->p_offset + part->p_filesz - 1] = 0;
            return image + part->p_offset;
        }
    }
    return NULL;
}

#define IMAGE_BYTES 4096

/* 1 when the loader of a program would not know our library: better not to name it there at all. */
static int is_foreign(const char *path) {
    char *image = borrow(IMAGE_BYTES);
    if (!image)
        return 0;
    size_t bytes = read_file(path, image, IMAGE_BYTES);
    int foreign = 0;
    if (bytes >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0) {
        const char *wanted = loader_of(image, bytes);
        foreign = !wanted || (loader[0] && strcmp(wanted, loader) != 0);
    }
    munmap(image, IMAGE_BYTES);
    return foreign;
}

/* Write an exec: program, then arguments separated by zero bytes; flags 1 when the environment leads to the agent. */
static void note_exec(uint8_t kind, const char *path, char *const arguments[], char *const environment[]) {
    BEGIN
    char *text = borrow(ARGUMENTS_MAX);
    size_t bytes = 0;
    for (int i = 0; text && arguments && arguments[i]; i++) {
        size_t length = strlen(arguments[i]) + 1;
        if (bytes + length > ARGUMENTS_MAX)
            break;
        memcpy(text + bytes, arguments[i], length);
        bytes += length;
    }
    struct name name = {.far = NULL, .text = NULL};
    if (path && path[0] != '/' && strchr(path, '/'))
        name_at(AT_FDCWD, path, &name);
    const char *program = name.text ? name.text : path ? path : "";
    size_t length = strlen(program);
    put(kind, UNKNOWN, value_in(environment, "LICHEN_TRACE_DIR") != NULL, 0, NULL, program,
        length > RECORD_PATH_MAX ? RECORD_PATH_MAX : length, text, bytes);
    forget(&name);
    if (text)
        munmap(text, ARGUMENTS_MAX);
    END
}

static void exec_failed(void) {
    note('x', "", 0);
}

/* What a new environment must say so that tracing goes along. Counts what is wrong with it. */
static int lacks(char *const environment[]) {
    const char *preload = value_in(environment, "LD_PRELOAD"), *python = value_in(environment, "PYTHONPATH");
    return !preload || !strstr(preload, library) || !value_in(environment, "LICHEN_TRACE_DIR") ||
           (agent[0] && (!python || !has_prefix(python, agent)));
}

static size_t count_of(char *const environment[]) {
    size_t count = 0;
    while (environment && environment[count])
        count++;
    return count;
}

/* Fill `into` with an environment that leads to us; `text` holds the new strings. */
static void complete(char *const environment[], int foreign, char **into, char *text) {
    const char *preload = value_in(environment, "LD_PRELOAD"), *python = value_in(environment, "PYTHONPATH");
    size_t count = 0;
    for (; environment && *environment; environment++) {
        if (has_prefix(*environment, "LD_PRELOAD=") || (agent[0] && has_prefix(*environment, "PYTHONPATH=")) ||
            has_prefix(*environment, "LICHEN_TRACE_DIR=") || has_prefix(*environment, "LICHEN_TRACE_AGENT="))
            continue;
        into[count++] = *environment;
    }
    into[count++] = text;
    text += sprintf(text, "LICHEN_TRACE_DIR=%s", directory) + 1;
    into[count++] = text;
    text += sprintf(text, "LICHEN_TRACE_AGENT=%s", agent) + 1;
    if (agent[0]) {
        into[count++] = text;
        const char *rest = python && has_prefix(python, agent) ? python + strlen(agent) : python;
        const char *colon = rest && *rest && *rest != ':' ? ":" : "";
        text += sprintf(text, "PYTHONPATH=%s%s%s", agent, colon, rest ? rest : "") + 1;
    }
    const char *ours = preload ? strstr(preload, library) : NULL;
    if (!foreign && ours) {
        into[count++] = text;
        sprintf(text, "LD_PRELOAD=%s", preload);
    } else if (!foreign) {
        into[count++] = text;
        sprintf(text, "LD_PRELOAD=%s%s%s", preload ? preload : "", preload && *preload ? ":" : "", library);
    }
    into[count] = NULL;
}

#define ENVIRONMENT_ENTRIES_MAX 8192
#define ENVIRONMENT_TEXT_MAX 65536

static size_t text_needed(char *const environment[]) {
    const char *preload = value_in(environment, "LD_PRELOAD"), *python = value_in(environment, "PYTHONPATH");
    return 256 + 2 * sizeof directory + 3 * sizeof agent + sizeof library + (preload ? strlen(preload) : 0) +
           (python ? strlen(python) : 0);
}

/* Replace `environment` by a completed copy on the caller's stack where it must be. */
#define COMPLETED(environment, path)                                                            \
    int foreign_ = head && (path) && strchr((path), '/') && is_foreign(path);                   \
    if (head && (foreign_ || lacks(environment)) && count_of(environment) < ENVIRONMENT_ENTRIES_MAX && \
        text_needed(environment) < ENVIRONMENT_TEXT_MAX) {                                      \
        char **entries_ = __builtin_alloca((count_of(environment) + 6) * sizeof(char *));       \
        complete(environment, foreign_, entries_, __builtin_alloca(text_needed(environment)));  \
        environment = entries_;                                                                 \
    }

/* Say who we are: executable, then parent, standard input and arguments. */
static void note_image(void) {
    BEGIN
    struct stat st;
    char extra[4096 + 64], exe[PATH_MAX]; /* the first thread's stack is large */
    long length = SYS(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", exe, sizeof exe);
    if (length < 0)
        length = 0;
    int has_stdin = SYS(SYS_fstat, 0, &st) == 0;
    int used = snprintf(extra, 64, "%ld", (long)SYS(SYS_getppid)) + 1;
    used += (int)read_file("/proc/self/cmdline", extra + used, 4096);
    put('I', UNKNOWN, 0, 0, has_stdin ? &st : NULL, exe, (size_t)length, extra, (size_t)used);
    END
}

/* Files that were open before the program began, other than the standard streams: nobody saw them being opened. */
static void note_inherited(void) {
    for (int descriptor = 3; descriptor < 16; descriptor++) {
        struct stat st;
        long flags = SYS(SYS_fcntl, descriptor, F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY || SYS(SYS_fstat, descriptor, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        char link[40], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        long length = SYS(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
        if (length <= 0)
            continue;
        path[length] = 0;
        uint64_t mark = mark_of('O', 0, 1, path);
        if (!is_boring(path) && !is_known(mark)) {
            put_path('O', UNKNOWN, 0, 0, &st, path, NULL);
            remember(mark);
        }
    }
}

/* At the end, and only then: every library and file in memory that is not the system's. */
static void note_mappings(void) {
    if (!head || SYS(SYS_getpid) != atomic_load(&owner) || atomic_exchange(&finished, 1))
        return;
    long descriptor = SYS(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (descriptor < 0)
        return;
    static char text[8192];
    size_t held = 0;
    for (;;) {
        long got = SYS(SYS_read, (int)descriptor, text + held, sizeof text - 1 - held);
        if (got <= 0)
            break;
        held += (size_t)got;
        text[held] = 0;
        char *line = text, *end;
        while ((end = strchr(line, '\n'))) {
            *end = 0;
            char *path = strchr(line, '/');
            uint64_t mark = path && !is_boring(path) ? mark_of('Q', 0, 0, path) : 0;
            if (mark && !is_known(mark)) {
                note('Q', path, strlen(path));
                remember(mark);
            }
            line = end + 1;
        }
        held = (size_t)(text + held - line);
        if (held >= sizeof text - 1)
            held = 0; /* a line longer than any path */
        memmove(text, line, held);
    }
    SYS(SYS_close, (int)descriptor);
}

/* The object whose code holds an address: its lowest and highest byte. */
static int find_object(struct dl_phdr_info *info, size_t size, void *found) {
    uintptr_t *range = found; /* address, low, high */
    uintptr_t low = UINTPTR_MAX, high = 0;
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, end = start + info->dlpi_phdr[i].p_memsz;
            low = start < low ? start : low;
            high = end > high ? end : high;
        }
    if (range[0] >= low && range[0] < high) {
        range[1] = low;
        range[2] = high;
        return 1;
    }
    return 0;
}

static void announce_agent(const void *caller) {
    uintptr_t range[3] = {(uintptr_t)caller, 0, 0};
    if (dl_iterate_phdr(find_object, range)) {
        core_low = range[1];
        core_high = range[2];
    }
    note('A', "", 0);
}

static void forked(void) {
    atomic_store(&owner, SYS(SYS_getpid));
    atomic_store(&finished, 0);
    atomic_store(&stdin_noted, 0);
}

__attribute__((constructor)) static void start(void) {
    int saved_errno = errno;
    char *const *environment = environ;
    const char *trace = value_in(environment, "LICHEN_TRACE_DIR"), *own = value_in(environment, "LD_PRELOAD");
    const char *where = value_in(environment, "LICHEN_TRACE_AGENT");
    Dl_info info;
    if (!trace || strlen(trace) >= sizeof directory - 16 || !own)
        goto out;
    strcpy(directory, trace);
    if (where && strlen(where) < sizeof agent)
        strcpy(agent, where);
    if (dladdr((void *)note_image, &info) && info.dli_fname && strlen(info.dli_fname) < sizeof library)
        strcpy(library, info.dli_fname);
    const ElfW(Phdr) *part = (const void *)getauxval(AT_PHDR);
    uintptr_t base = 0;
    for (unsigned long i = 0; part && i < getauxval(AT_PHNUM); i++)
        if (part[i].p_type == PT_PHDR)
            base = (uintptr_t)part - part[i].p_vaddr;
    for (unsigned long i = 0; part && i < getauxval(AT_PHNUM); i++)
        if (part[i].p_type == PT_INTERP)
            snprintf(loader, sizeof loader, "%s", (const char *)(base + part[i].p_vaddr));
    char path[1100];
    snprintf(path, sizeof path, "%s/" LOG_NAME, directory);
    long descriptor = SYS(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (descriptor < 0)
        goto out;
    void *map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, (int)descriptor, 0);
    SYS(SYS_close, (int)descriptor);
    if (map == MAP_FAILED)
        goto out;
    if (((struct header *)map)->magic != 0x314552504843494cull) { /* "LICHPRE1" */
        munmap(map, MAP_BYTES);
        goto out;
    }
    table = (void *)((char *)map + HEADER_BYTES);
    data = (char *)map + DATA_OFFSET;
    head = map;
    forked();
    pthread_atfork(NULL, NULL, forked);
    note_image();
    note_inherited();
out:
    errno = saved_errno;
}

__attribute__((destructor)) static void stop(void) {
    int saved_errno = errno;
    note_mappings();
    errno = saved_errno;
}
