/* Changes of stored pieces of the state, many at once: what lichen/ledger/state_bucket.py and state_nodes.py say, in C.
 *
 * Nothing is decided here. A bucket that is damaged, too large for the scratch memory or otherwise unusual is refused with
 * CANNOT, and the caller goes the way in Python, which is the definition and knows how to complain.
 *
 * A bucket: number of keys, 2 bytes | keys, 32 each | bits, 1 each | node hashes, 32 each | lengths, 2 each | values;
 * one bit and one node hash fewer than keys. Changes, in the order of their keys: key, 32 | length, 2 | value; length 0
 * removes the key. Numbers are big-endian.
 *
 * SHA-256 is the one of the library that Python itself uses; its three functions are handed in.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
#define KEY 32
#define HASH 32
#define HEAD 34          /* key and length of a change */
#define KEYS_MAX 512     /* old keys and changes together */
#define CANNOT (-1)
#define UNCHANGED (-2)

typedef int (*begin_function)(void *);
typedef int (*more_function)(void *, const void *, size_t);
typedef int (*end_function)(uint8_t *, void *);

struct hasher {
    begin_function begin;
    more_function more;
    end_function end;
};

/* A bucket taken apart: pointers into its bytes, and where each value starts. */
struct bucket {
    int count;
    const uint8_t *keys, *bits, *nodes, *values;
    uint32_t starts[KEYS_MAX + 1];
};

/* A key of the bucket as it will be. */
struct row {
    const uint8_t *key, *value;
    uint32_t length;
    int old;       /* its place in the bucket before, or -1 */
    uint8_t dirty; /* the nodes above it have to be computed */
};

static void sha256(const struct hasher *hasher, const uint8_t *data, size_t size, uint8_t *digest)
{
    uint64_t context[64]; /* far more than SHA256_CTX */
    hasher->begin(context);
    hasher->more(context, data, size);
    hasher->end(digest, context);
}

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static void leaf_hash(const struct hasher *hasher, const uint8_t *key, const uint8_t *value, size_t length, uint8_t *digest)
{
    uint8_t leaf[1 + KEY + HASH];
    leaf[0] = 2;
    memcpy(leaf + 1, key, KEY);
    sha256(hasher, value, length, leaf + 1 + KEY);
    sha256(hasher, leaf, sizeof leaf, digest);
}

static void inner_hash(const struct hasher *hasher, uint8_t bit, const uint8_t *left, const uint8_t *right, uint8_t *digest)
{
    uint8_t node[2 + 2 * HASH];
    node[0] = 3;
    node[1] = bit;
    memcpy(node + 2, left, HASH);
    memcpy(node + 2 + HASH, right, HASH);
    sha256(hasher, node, sizeof node, digest);
}

static int first_difference(const uint8_t *one, const uint8_t *other)
{
    for (int at = 0; at < KEY; at++)
        if (one[at] != other[at])
            return 8 * at + __builtin_clz((unsigned)(one[at] ^ other[at])) - 24;
    return 8 * KEY;
}

/* The parting with the lowest bit among those from one key to another, which differ. */
static int lowest(const uint8_t *bits, int low, int high)
{
    int at = low;
    for (int next = low + 1; next < high; next++)
        if (bits[next] < bits[at])
            at = next;
    return at;
}

static int take_apart(const uint8_t *data, uint64_t size, struct bucket *bucket)
{
    bucket->count = 0;
    bucket->starts[0] = 0;
    if (size == 0)
        return 1;
    uint64_t count = size < 2 ? 0 : number_at(data);
    if (count == 0 || count > KEYS_MAX || size < 2 + 67 * count - 33)
        return 0;
    bucket->count = (int)count;
    bucket->keys = data + 2;
    bucket->bits = bucket->keys + KEY * count;
    bucket->nodes = bucket->bits + count - 1;
    const uint8_t *lengths = bucket->nodes + HASH * (count - 1);
    bucket->values = lengths + 2 * count;
    for (uint64_t at = 0; at < count; at++) {
        if (number_at(lengths + 2 * at) == 0)
            return 0;
        bucket->starts[at + 1] = bucket->starts[at] + number_at(lengths + 2 * at);
    }
    return bucket->values + bucket->starts[count] == data + size;
}

static void old_leaf(const struct hasher *hasher, const struct bucket *bucket, int at, uint8_t *digest)
{
    leaf_hash(hasher, bucket->keys + KEY * at, bucket->values + bucket->starts[at],
              bucket->starts[at + 1] - bucket->starts[at], digest);
}

/* Whether a key and its value are those that the node above them was made of. */
static int is_stored(const struct hasher *hasher, const struct bucket *bucket, int at)
{
    const uint8_t *bits = bucket->bits;
    int last = bucket->count - 1;
    if (last == 0)
        return 1; /* the hash above it is another piece's */
    int before = at > 0 ? bits[at - 1] : -1, after = at < last ? bits[at] : -1;
    int is_left = after > before, parting = is_left ? at : at - 1, low = at, high = at;
    if (is_left) {
        low = high = at + 1;
        while (high < last && bits[high] > after)
            high++;
    } else {
        low = high = at - 1;
        while (low > 0 && bits[low - 1] > before)
            low--;
    }
    uint8_t own[HASH], other[HASH], found[HASH];
    old_leaf(hasher, bucket, at, own);
    if (low == high)
        old_leaf(hasher, bucket, low, other);
    else
        memcpy(other, bucket->nodes + HASH * lowest(bits, low, high), HASH);
    inner_hash(hasher, bits[parting], is_left ? own : other, is_left ? other : own, found);
    return memcmp(found, bucket->nodes + HASH * parting, HASH) == 0;
}

/* Hash the rows from one to another, which are all those below some node, and store the hashes of the partings between. */
static void hash_range(const struct hasher *hasher, const struct bucket *before, const struct row *rows, const uint8_t *bits,
                       const int *dirty_until, int low, int high, uint8_t *nodes, uint8_t *digest)
{
    if (low == high) {
        leaf_hash(hasher, rows[low].key, rows[low].value, rows[low].length, digest);
        return;
    }
    int parting = lowest(bits, low, high);
    uint8_t *node = nodes + HASH * parting;
    if (dirty_until[high + 1] == dirty_until[low]) { /* as it was, and so are all those below */
        for (int at = low; at < high; at++)
            memcpy(nodes + HASH * at, before->nodes + HASH * rows[at].old, HASH);
    } else {
        uint8_t left[HASH], right[HASH];
        hash_range(hasher, before, rows, bits, dirty_until, low, parting, nodes, left);
        hash_range(hasher, before, rows, bits, dirty_until, parting + 1, high, nodes, right);
        inner_hash(hasher, bits[parting], left, right, node);
    }
    memcpy(digest, node, HASH);
}

/* Change a bucket.
 *
 * data, size: the bucket, or nothing where there is none.
 * changes, changes_size: see above.
 * out, room: gets 32 bytes of hash and the new bucket; behind them what undoes the changes, in the form of changes.
 * undo_at, undo_size: get where that stands.
 *
 * Returns the size of the new bucket, 0 when no key is left; UNCHANGED; or CANNOT.
 */
PUBLIC int64_t state_change_bucket(const struct hasher *hasher, const uint8_t *data, uint64_t size, const uint8_t *changes,
                                   uint64_t changes_size, uint8_t *out, uint64_t room, uint64_t *undo_at, uint64_t *undo_size)
{
    struct bucket before;
    struct row rows[KEYS_MAX];
    const uint8_t *undone[KEYS_MAX];
    int undone_old[KEYS_MAX], undone_count = 0, count = 0, at = 0, removed = 0;
    uint64_t values_size = 0, undo_room = 0;
    if (!take_apart(data, size, &before) || (uint64_t)before.count + changes_size / HEAD > KEYS_MAX)
        return CANNOT;
    const uint8_t *change = changes, *changes_end = changes + changes_size, *previous = NULL;
    while (change < changes_end || at < before.count) {
        int order = 1; /* of the next old key against the next change */
        uint32_t length = 0;
        if (change < changes_end) {
            if (changes_end - change < HEAD)
                return CANNOT;
            length = number_at(change + KEY);
            if ((uint64_t)(changes_end - change) < HEAD + (uint64_t)length)
                return CANNOT;
            if (previous && memcmp(previous, change, KEY) >= 0)
                return CANNOT;
            if (at < before.count)
                order = memcmp(before.keys + KEY * at, change, KEY);
        } else {
            order = -1;
        }
        if (order < 0) {
            rows[count] = (struct row){before.keys + KEY * at, before.values + before.starts[at],
                                       before.starts[at + 1] - before.starts[at], at, (uint8_t)removed};
            if (count && at && memcmp(rows[count - 1].key, rows[count].key, KEY) >= 0)
                return CANNOT;
            values_size += rows[count++].length;
            removed = 0;
            at++;
            continue;
        }
        uint32_t old_length = order ? 0 : before.starts[at + 1] - before.starts[at];
        const uint8_t *value = change + HEAD, *old_value = order ? NULL : before.values + before.starts[at];
        int is_same = old_length == length && (length == 0 || memcmp(value, old_value, length) == 0);
        if (!is_same) {
            if (order == 0 && !is_stored(hasher, &before, at))
                return CANNOT;
            undone[undone_count] = change;
            undone_old[undone_count++] = order ? -1 : at;
            undo_room += HEAD + old_length;
        }
        if (length) {
            rows[count] = (struct row){change, value, length, order ? -1 : at, (uint8_t)(!is_same || removed)};
            values_size += length;
            count++;
            removed = 0;
        } else if (order == 0) {
            removed = 1;
            if (count)
                rows[count - 1].dirty = 1;
        }
        at += order == 0;
        previous = change;
        change += HEAD + length;
    }
    if (undone_count == 0)
        return UNCHANGED;
    uint64_t new_size = count ? 2 + 67 * (uint64_t)count - 33 + values_size : 0;
    if (count > 0xffff || HASH + new_size + undo_room > room)
        return CANNOT;
    uint8_t *undo = out + HASH + new_size;
    *undo_at = HASH + new_size;
    *undo_size = undo_room;
    for (int each = 0; each < undone_count; each++) {
        int old = undone_old[each];
        uint32_t length = old < 0 ? 0 : before.starts[old + 1] - before.starts[old];
        memcpy(undo, undone[each], KEY);
        undo[KEY] = (uint8_t)(length >> 8);
        undo[KEY + 1] = (uint8_t)length;
        if (length)
            memcpy(undo + HEAD, before.values + before.starts[old], length);
        undo += HEAD + length;
    }
    if (count == 0)
        return 0;
    uint8_t *place = out + HASH, *bits = place + 2 + KEY * count, *nodes = bits + count - 1;
    uint8_t *lengths = nodes + HASH * (count - 1), *values = lengths + 2 * count;
    int dirty_until[KEYS_MAX + 1];
    dirty_until[0] = 0;
    place[0] = (uint8_t)(count >> 8);
    place[1] = (uint8_t)count;
    for (int row = 0; row < count; row++) {
        memcpy(place + 2 + KEY * row, rows[row].key, KEY);
        lengths[2 * row] = (uint8_t)(rows[row].length >> 8);
        lengths[2 * row + 1] = (uint8_t)rows[row].length;
        memcpy(values, rows[row].value, rows[row].length);
        values += rows[row].length;
        dirty_until[row + 1] = dirty_until[row] + rows[row].dirty;
        if (row == 0)
            continue;
        int bit = first_difference(rows[row - 1].key, rows[row].key);
        int one = rows[row - 1].old, other = rows[row].old;
        if (bit >= 8 * KEY || (one >= 0 && other == one + 1 && bit != before.bits[one]))
            return CANNOT;
        bits[row - 1] = (uint8_t)bit;
    }
    hash_range(hasher, &before, rows, bits, dirty_until, 0, count - 1, nodes, out);
    return (int64_t)new_size;
}

/* Recompute every place above some slots of a tile, as Tile.rehash does.
 *
 * places: the hashes of the tile's stored form: that of place p at 32 * (p - 2), from place 2 on.
 * levels: how many halvings lead from the tile to its slots, at most 5. bit: of the keys, by which place 1 parts them.
 * slots: bit n for slot n. digest: gets the tile's own hash.
 */
PUBLIC void state_rehash_tile(const struct hasher *hasher, uint8_t *places, int levels, int bit, uint32_t slots, uint8_t *digest)
{
    static const uint8_t nothing[HASH];
    uint32_t above = slots; /* which of a level's places changed */
    for (int level = levels - 1; level >= 0; level--) {
        uint32_t changed = above;
        above = 0;
        for (int at = 0; at < 1 << level; at++) {
            if (!(changed >> 2 * at & 3))
                continue;
            above |= (uint32_t)1 << at;
            int place = (1 << level) + at;
            const uint8_t *left = places + HASH * (2 * place - 2), *right = left + HASH;
            uint8_t own[HASH];
            if (memcmp(left, nothing, HASH) == 0)
                memcpy(own, right, HASH);
            else if (memcmp(right, nothing, HASH) == 0)
                memcpy(own, left, HASH);
            else
                inner_hash(hasher, (uint8_t)(bit + level), left, right, own);
            memcpy(place == 1 ? digest : places + HASH * (place - 2), own, HASH);
        }
    }
}
