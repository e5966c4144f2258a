/* Many files at once, column by column: which of them a log says were only read, what state they are in now, what they hold.
 *
 * Rules upheld:
 *   - Every function has a twin in Python that says the same file by file; this is only the faster way.
 *   - No global state. Nothing is read beyond the sizes given; what is allocated here is freed by columns_free.
 *   - Whatever is unusual is handed back untouched, never guessed at.
 *
 * The log is that of runs/trace/preload.c, an entry of a bucket that of digest_table.py; change them together.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define STATE_FIELDS 5  /* device, inode, size, mtime and ctime in nanoseconds */
#define ENTRY_BYTES 96
#define STATE_BYTES 24
#define DIGEST_BYTES 32
#define TEXT_STRIDE 33  /* a digest and a zero byte, see digest_texts.py */
#define PATH_BYTES_MAX 3999u
#define TYPE_REGULAR 8

struct record {
    uint32_t size;
    uint8_t kind, type, flags, core;
    uint32_t pid, path_bytes;
    int64_t time_ns;
    int64_t state[STATE_FIELDS];
    uint32_t extra_bytes, committed;
    char text[];
};

struct reads {
    uint64_t count, directory_count, names_bytes, directories_bytes, rest_bytes;
    char *names, *directories, *rest;
    uint32_t *counts;
    int64_t *states, *times;
};

struct file {
    const struct record *record;
    uint32_t directory_bytes, next; /* next: 1 + index of the next file of the same directory */
};

struct folder {
    uint32_t file, first, count; /* file: one that lies in it; first: 1 + index */
};

static uint64_t hash_of(const char *text, size_t bytes) {
    uint64_t hash = 1469598103934665603ull ^ bytes, piece;
    for (; bytes >= 8; text += 8, bytes -= 8) {
        memcpy(&piece, text, 8);
        hash = (hash ^ piece) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 32;
    }
    for (; bytes; text++, bytes--)
        hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    return hash ^ hash >> 29;
}

static int ends_in(const char *text, size_t bytes, const char *tail) {
    size_t length = strlen(tail);
    return bytes >= length && memcmp(text + bytes - length, tail, length) == 0;
}

/* 1 for an open for reading of a regular file, whose path is as it should be and can be no module's or library's. */
static int is_plain(const struct record *record) {
    const char *path = record->text;
    size_t bytes = record->path_bytes;
    if (!record->committed || record->kind != 'O' || record->flags || record->type != TYPE_REGULAR || record->extra_bytes)
        return 0;
    if (bytes < 2 || bytes > PATH_BYTES_MAX || sizeof *record + bytes > record->size)
        return 0;
    if (path[0] != '/' || path[bytes - 1] == '/' || memchr(path, 0, bytes))
        return 0;
    return !memmem(path, bytes, "/.", 2) && !memmem(path, bytes, "//", 2) && !memmem(path, bytes, ".so", 3) &&
           !ends_in(path, bytes, ".py") && !ends_in(path, bytes, ".pyc");
}

static const char *name_of(const struct file *file, size_t *bytes) {
    *bytes = file->record->path_bytes - file->directory_bytes - 1;
    return file->record->text + file->directory_bytes + 1;
}

static int by_text(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int by_name(const void *left, const void *right) {
    size_t a_bytes, b_bytes;
    const char *a = name_of(left, &a_bytes), *b = name_of(right, &b_bytes);
    return by_text(a, a_bytes, b, b_bytes);
}

struct table {
    uint32_t *slots; /* 1 + index */
    uint64_t mask;
};

static int make_table(struct table *table, uint64_t count) {
    uint64_t size = 64;
    while (size < 2 * count)
        size *= 2;
    table->mask = size - 1;
    table->slots = calloc(size, sizeof *table->slots);
    return table->slots != NULL;
}

struct work {
    struct file *files, *sorted;
    struct folder *folders;
    uint32_t file_count, folder_count;
    struct table by_path, by_directory;
};

/* Take a plain read, unless its path is known; of two the earlier one stands. */
static void take(struct work *work, const struct record *record) {
    size_t bytes = record->path_bytes;
    uint64_t slot = hash_of(record->text, bytes);
    for (;; slot++) {
        uint32_t there = work->by_path.slots[slot &= work->by_path.mask];
        if (!there)
            break;
        struct file *file = &work->files[there - 1];
        if (file->record->path_bytes == bytes && memcmp(file->record->text, record->text, bytes) == 0) {
            if (record->time_ns < file->record->time_ns)
                file->record = record;
            return;
        }
    }
    uint32_t index = work->file_count++;
    work->by_path.slots[slot] = index + 1;
    uint32_t length = (uint32_t)((const char *)memrchr(record->text, '/', bytes) - record->text);
    work->files[index] = (struct file){record, length, 0};
    for (slot = hash_of(record->text, length);; slot++) {
        uint32_t there = work->by_directory.slots[slot &= work->by_directory.mask];
        if (!there) {
            work->by_directory.slots[slot] = ++work->folder_count;
            work->folders[work->folder_count - 1] = (struct folder){index, index + 1, 1};
            return;
        }
        struct folder *folder = &work->folders[there - 1];
        const struct file *other = &work->files[folder->file];
        if (other->directory_bytes == length && memcmp(other->record->text, record->text, length) == 0) {
            work->files[index].next = folder->first;
            folder->first = index + 1;
            folder->count++;
            return;
        }
    }
}

static void write_out(const struct work *work, struct reads *reads) {
    char *names = reads->names, *directories = reads->directories;
    uint64_t place = 0;
    for (uint32_t i = 0; i < work->folder_count; i++) {
        const struct folder *folder = &work->folders[i];
        const struct file *any = &work->files[folder->file];
        memcpy(directories, any->record->text, any->directory_bytes);
        directories += any->directory_bytes;
        *directories++ = 0;
        reads->counts[i] = folder->count;
        uint32_t number = 0;
        for (uint32_t next = folder->first; next; next = work->files[next - 1].next)
            work->sorted[number++] = work->files[next - 1];
        qsort(work->sorted, number, sizeof *work->sorted, by_name);
        for (uint32_t k = 0; k < number; k++, place++) {
            size_t bytes;
            const char *name = name_of(&work->sorted[k], &bytes);
            memcpy(names, name, bytes);
            names += bytes;
            *names++ = 0;
            memcpy(reads->states + place * STATE_FIELDS, work->sorted[k].record->state, STATE_FIELDS * sizeof(int64_t));
            reads->times[place] = work->sorted[k].record->time_ns;
        }
    }
    reads->count = place;
    reads->directory_count = work->folder_count;
    reads->names_bytes = (uint64_t)(names - reads->names);
    reads->directories_bytes = (uint64_t)(directories - reads->directories);
}

EXPORT void columns_free(struct reads *reads) {
    if (reads) {
        free(reads->names), free(reads->directories), free(reads->rest);
        free(reads->counts), free(reads->states), free(reads->times);
        free(reads);
    }
}

static int make_room(struct work *work, struct reads *reads, uint64_t count, uint64_t bytes) {
    return (work->files = malloc(count * sizeof *work->files)) && (work->sorted = malloc(count * sizeof *work->sorted)) &&
           (work->folders = malloc(count * sizeof *work->folders)) && make_table(&work->by_path, count) &&
           make_table(&work->by_directory, count) && (reads->names = malloc(bytes)) && (reads->directories = malloc(bytes)) &&
           (reads->rest = malloc(bytes)) && (reads->counts = malloc(count * sizeof *reads->counts)) &&
           (reads->states = malloc(count * STATE_FIELDS * sizeof *reads->states)) &&
           (reads->times = malloc(count * sizeof *reads->times));
}

/* Part the plain reads of a log from all other records. NULL without memory, or when the log is too long. */
EXPORT struct reads *columns_split(const char *log, uint64_t bytes) {
    uint64_t room = bytes / sizeof(struct record) + 1, offset = 0;
    struct work work = {0};
    struct reads *reads = calloc(1, sizeof *reads);
    if (!reads || room > UINT32_MAX / 2 || !make_room(&work, reads, room, bytes + room)) {
        columns_free(reads);
        reads = NULL;
        goto end;
    }
    while (offset + sizeof(struct record) <= bytes) {
        const struct record *record = (const void *)(log + offset);
        uint64_t size = record->size;
        if (size < sizeof *record || size % 8 || size > bytes - offset)
            break;
        if (is_plain(record)) {
            take(&work, record);
        } else {
            memcpy(reads->rest + reads->rest_bytes, record, size);
            reads->rest_bytes += size;
        }
        offset += size;
    }
    memcpy(reads->rest + reads->rest_bytes, log + offset, bytes - offset); /* the reader of the rest says what is wrong there */
    reads->rest_bytes += bytes - offset;
    write_out(&work, reads);
end:
    free(work.files), free(work.sorted), free(work.folders), free(work.by_path.slots), free(work.by_directory.slots);
    return reads;
}

/* Look at files by path, each followed by a zero byte: type (0 when it cannot be looked at) and state of each. Those that follow
 * one another in one directory are looked at from there. */
EXPORT void columns_look(const char *paths, uint64_t count, int64_t *states, uint8_t *types) {
    char directory[PATH_BYTES_MAX + 1];
    size_t known = 0;
    int descriptor = -1;
    for (uint64_t i = 0; i < count; i++) {
        size_t bytes = strlen(paths);
        const char *slash = memrchr(paths, '/', bytes);
        size_t length = slash ? (size_t)(slash - paths) : 0;
        struct stat st;
        if (length && length <= PATH_BYTES_MAX && !(length == known && memcmp(directory, paths, length) == 0)) {
            if (descriptor >= 0)
                close(descriptor);
            memcpy(directory, paths, length);
            directory[length] = 0;
            known = length;
            descriptor = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        int near = length && length == known && descriptor >= 0 && slash[1];
        int failed = near ? fstatat(descriptor, slash + 1, &st, 0) : stat(paths, &st);
        types[i] = failed ? 0 : (uint8_t)(st.st_mode >> 12);
        if (!failed) {
            int64_t *state = states + i * STATE_FIELDS;
            state[0] = (int64_t)st.st_dev;
            state[1] = (int64_t)st.st_ino;
            state[2] = st.st_size;
            state[3] = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
            state[4] = st.st_ctim.tv_sec * 1000000000ll + st.st_ctim.tv_nsec;
        }
        paths += bytes + 1;
    }
    if (descriptor >= 0)
        close(descriptor);
}

struct listing {
    uint64_t count, bytes, room;
    char *names; /* a zero byte behind each */
    uint8_t *types;
};

EXPORT void columns_free_listing(struct listing *listing) {
    if (listing) {
        free(listing->names), free(listing->types);
        free(listing);
    }
}

/* Make room for one more name; every name has two bytes at least, so there are no more types than bytes. */
static int make_place(struct listing *listing, size_t bytes) {
    if (listing->bytes + bytes <= listing->room)
        return 1;
    uint64_t room = 2 * (listing->bytes + bytes) + 4096;
    char *names = realloc(listing->names, room);
    if (names)
        listing->names = names;
    uint8_t *types = realloc(listing->types, room);
    if (types)
        listing->types = types;
    if (!names || !types)
        return 0;
    listing->room = room;
    return 1;
}

/* List a directory: names, and types as in st_mode >> 12. NULL when it cannot be listed, or does not tell the types. */
EXPORT struct listing *columns_list(const char *path) {
    DIR *directory = opendir(path);
    struct listing *listing = directory ? calloc(1, sizeof *listing) : NULL;
    int failed = !listing;
    while (!failed) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (!entry) {
            failed = errno != 0;
            break;
        }
        const char *name = entry->d_name;
        if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
            continue;
        size_t bytes = strlen(name) + 1;
        failed = entry->d_type == DT_UNKNOWN || !make_place(listing, bytes);
        if (!failed) {
            memcpy(listing->names + listing->bytes, name, bytes);
            listing->bytes += bytes;
            listing->types[listing->count++] = entry->d_type;
        }
    }
    if (directory)
        closedir(directory);
    if (failed) {
        columns_free_listing(listing);
        return NULL;
    }
    return listing;
}

/* Name the buckets that states lie in, device and inode without its lowest bits; those that follow one another once. Returns how many. */
EXPORT uint64_t columns_buckets(const int64_t *states, uint64_t count, uint32_t bits, uint64_t *buckets) {
    uint64_t number = 0;
    for (uint64_t i = 0; i < count; i++, states += STATE_FIELDS) {
        uint64_t device = (uint64_t)states[0], bucket = (uint64_t)states[1] >> bits;
        if (number && buckets[2 * number - 2] == device && buckets[2 * number - 1] == bucket)
            continue;
        buckets[2 * number] = device;
        buckets[2 * number++ + 1] = bucket;
    }
    return number;
}

/* Look states up among the entries of one device, sorted by inode: the digest of each, a zero byte behind it. Those that are
 * marked as found are left alone; the others found here are marked. */
EXPORT void columns_find(const int64_t *states, uint64_t count, uint64_t device, const char *entries, uint64_t entry_count,
                         char *digests, uint8_t *found) {
    uint64_t last = 0;
    for (uint64_t i = 0; i < count; i++) {
        const int64_t *state = states + i * STATE_FIELDS;
        uint64_t wanted = (uint64_t)state[1], inode = 0, low = 0, high = entry_count;
        if (found[i] || (uint64_t)state[0] != device)
            continue;
        if (last + 1 < entry_count) { /* neighbours are mostly asked for one after the other */
            memcpy(&inode, entries + (last + 1) * ENTRY_BYTES, sizeof inode);
            if (inode == wanted)
                low = last + 1, high = last + 2;
        }
        while (low < high) {
            uint64_t middle = low + (high - low) / 2;
            memcpy(&inode, entries + middle * ENTRY_BYTES, sizeof inode);
            if (inode == wanted) {
                const char *entry = entries + middle * ENTRY_BYTES + sizeof inode;
                last = middle;
                if (memcmp(entry, state + 2, STATE_BYTES) == 0) {
                    memcpy(digests + i * TEXT_STRIDE, entry + STATE_BYTES, DIGEST_BYTES);
                    digests[i * TEXT_STRIDE + DIGEST_BYTES] = 0;
                    found[i] = 1;
                }
                break;
            }
            if (inode < wanted)
                low = middle + 1;
            else
                high = middle;
        }
    }
}

struct text {
    uint64_t members_bytes, names_bytes;
    char *members, *names;
    uint32_t *order;
};

struct entry {
    const char *name; /* a zero byte behind it */
    uint32_t bytes, place;
};

EXPORT void columns_free_text(struct text *text) {
    if (text) {
        free(text->members), free(text->names), free(text->order);
        free(text);
    }
}

static int by_whole_name(const void *left, const void *right) {
    return strcmp(((const struct entry *)left)->name, ((const struct entry *)right)->name);
}

/* Copy up to a zero byte what stands in JSON as it is; NULL when something in it would not. */
static char *copy_plain(char *to, const char *from) {
    for (; *from; from++) {
        unsigned char byte = (unsigned char)*from;
        if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
            return NULL;
        *to++ = (char)byte;
    }
    return to;
}

static char *put_digest(char *to, const unsigned char *digest) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < DIGEST_BYTES - 2; i += 3, digest += 3) {
        uint32_t three = (uint32_t)digest[0] << 16 | (uint32_t)digest[1] << 8 | digest[2];
        *to++ = letters[three >> 18], *to++ = letters[three >> 12 & 63];
        *to++ = letters[three >> 6 & 63], *to++ = letters[three & 63];
    }
    uint32_t two = (uint32_t)digest[0] << 16 | (uint32_t)digest[1] << 8;
    *to++ = letters[two >> 18], *to++ = letters[two >> 12 & 63], *to++ = letters[two >> 6 & 63];
    return to;
}

/* Write names one after the other; how they lie in memory. 0 when one of them would not stand in JSON as it is. */
static int spell(struct entry *entries, char *at, const char *prefixes, const uint32_t *counts, uint64_t groups, const char *names) {
    uint32_t place = 0;
    for (uint64_t group = 0; group < groups; group++) {
        char head[PATH_BYTES_MAX + 1];
        size_t bytes = strlen(prefixes);
        if (bytes > PATH_BYTES_MAX || !copy_plain(head, prefixes))
            return 0;
        for (uint32_t i = 0; i < counts[group]; i++, place++) {
            char *start = at;
            memcpy(at, head, bytes);
            if (!(at = copy_plain(at + bytes, names)))
                return 0;
            entries[place] = (struct entry){start, (uint32_t)(at - start), place};
            *at++ = 0;
            names += entries[place].bytes - bytes + 1;
        }
        prefixes += bytes + 1;
    }
    return 1;
}

/* Write a table of names and digests as canonical JSON, and its names in order, a zero byte between them. A name is a prefix, of
 * which each stands before so many names, and a name; each of all of these has a zero byte behind it. NULL without memory, when
 * something would need an escape, or when two names are equal. */
EXPORT struct text *columns_text(const char *prefixes, const uint32_t *counts, uint64_t groups, const char *names,
                                 uint64_t names_bytes, const char *digests, uint64_t count) {
    uint64_t bytes = names_bytes;
    const char *prefix = prefixes;
    for (uint64_t group = 0; group < groups; group++, prefix += strlen(prefix) + 1)
        bytes += strlen(prefix) * counts[group];
    struct text *text = calloc(1, sizeof *text);
    struct entry *entries = malloc((count + 1) * sizeof *entries);
    char *spelt = malloc(bytes + 1);
    int failed = !text || !entries || !spelt || !(text->members = malloc(bytes + count * 48 + 2)) ||
                 !(text->names = malloc(bytes + 1)) || !(text->order = malloc((count + 1) * sizeof *text->order)) ||
                 !spell(entries, spelt, prefixes, counts, groups, names);
    for (uint64_t i = 1; !failed && i < count; i++) {
        if (strcmp(entries[i - 1].name, entries[i].name) >= 0) {
            qsort(entries, count, sizeof *entries, by_whole_name);
            break;
        }
    }
    for (uint64_t i = 1; !failed && i < count; i++)
        failed = strcmp(entries[i - 1].name, entries[i].name) == 0;
    if (!failed) {
        char *member = text->members, *name = text->names;
        *member++ = '{';
        for (uint64_t i = 0; i < count; i++) {
            *member++ = '"';
            memcpy(member, entries[i].name, entries[i].bytes);
            member += entries[i].bytes;
            memcpy(member, "\":\"", 3);
            member = put_digest(member + 3, (const unsigned char *)digests + (uint64_t)entries[i].place * TEXT_STRIDE);
            *member++ = '"';
            *member++ = i + 1 < count ? ',' : '}';
            memcpy(name, entries[i].name, entries[i].bytes + 1);
            name += entries[i].bytes + 1;
            text->order[i] = entries[i].place;
        }
        if (!count)
            *member++ = '}';
        text->members_bytes = (uint64_t)(member - text->members);
        text->names_bytes = (uint64_t)(name - text->names) - (count > 0);
    }
    free(entries), free(spelt);
    if (failed) {
        columns_free_text(text);
        return NULL;
    }
    return text;
}
