// Writes the vectors of this folder with an importer that shares no code with Lichen.
//
//   npm install --no-save ipfs-unixfs-importer@17 blockstore-core && node make.mjs
//
// The parameters are those of `ipfs add --cid-version=1`; FORMAT.md says what each file holds.

import { writeFileSync } from 'node:fs'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { MemoryBlockstore } from 'blockstore-core/memory'

const KIB = 1024
const CHUNK = 256 * KIB

function options (chunkSize, maxChildrenPerNode) {
  return {
    cidVersion: 1,
    rawLeaves: true,
    wrapWithDirectory: false,
    shardSplitStrategy: 'links-bytes',
    fieldOrder: 'links-first',
    chunker: fixedSize({ chunkSize }),
    layout: balanced({ maxChildrenPerNode })
  }
}

async function name (files, chunkSize = CHUNK, width = 174) {
  let last
  for await (const entry of importer(files, new MemoryBlockstore(), options(chunkSize, width))) {
    last = entry
  }
  return last.cid.toString()
}

// The block number, eight bytes big-endian, 32 times over, for each block of 256 bytes.
function content (size) {
  const bytes = Buffer.alloc(Math.ceil(size / 256) * 256)
  for (let offset = 0; offset < bytes.length; offset += 8) {
    bytes.writeBigUInt64BE(BigInt(Math.floor(offset / 256)), offset)
  }
  return bytes.subarray(0, size)
}

async function files () {
  const sizes = [
    0, 1, 2, 31, 32, 255, 256, 257, 1000, 65536,
    CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 1000000,
    1024 * KIB - 1, 1024 * KIB, 1024 * KIB + 1, 2048 * KIB - 1, 2048 * KIB, 2048 * KIB + 1, 8192 * KIB, 10000000,
    173 * CHUNK, 174 * CHUNK - 1, 174 * CHUNK, 174 * CHUNK + 1, 175 * CHUNK, 348 * CHUNK, 348 * CHUNK + 1,
    200 * 1024 * KIB
  ]
  const vectors = []
  for (const size of sizes) {
    vectors.push({ size_bytes: size, cid: await name([{ path: 'file', content: content(size) }]) })
  }
  return vectors
}

async function smallChunks () {
  const cids = []
  for (let size = 0; size <= 400; size++) {
    cids.push(await name([{ path: 'file', content: content(size) }], 4, 3))
  }
  return { chunk_size: 4, node_width: 3, cids }
}

const text = string => new TextEncoder().encode(string)

function numbered (count, digits) {
  return Array.from({ length: count }, (_, i) => [String(i).padStart(digits, '0'), `${i}`])
}

const DIRECTORIES = {
  'one-empty-file': [['empty', '']],
  'one-file': [['a.txt', 'a']],
  'sorted-by-bytes': [['b', '1'], ['B', '2'], ['a', '3'], ['ä', '4'], ['Z', '5'], ['a.b', '6'], ['a-b', '7'], ['ab', '8']],
  'sorted-by-bytes-not-by-utf16': [['🦠', 'x'], ['�', 'y'], ['z', 'z']],
  'same-content-twice': [['one', 'same'], ['two', 'same']],
  nested: [['train/0.csv', '0'], ['train/1.csv', '1'], ['test/0.csv', '2'], ['README', 'three']],
  'with-empty-directories': [['full/file', 'x'], ['hollow', null], ['hollow-too/inner', null]],
  deep: [['a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/file', 'deep']],
  'a-file-of-several-chunks': [['large', content(600000)], ['small', 'x']]
}

const NUMBERED = [
  // Names of 8 bytes: 5,957 entries are 262,108 bytes of names and CIDs, 5,958 are 262,152.
  [5957, 8], [5958, 8], [6000, 8],
  // Exactly the threshold, and the first above it: 4,096 entries of 28 + 36 bytes.
  [4096, 28], [4097, 28],
  [20000, 9]
]

const body = value => typeof value === 'string' ? text(value) : value ?? undefined

async function directories () {
  const vectors = {}
  for (const [title, entries] of Object.entries(DIRECTORIES)) {
    vectors[title] = {
      entries: Object.fromEntries(entries.map(([path, value]) => [path, value?.buffer ? value.length : value])),
      cid: await name(entries.map(([path, value]) => ({ path: `root/${path}`, content: body(value) })))
    }
  }
  for (const [count, digits] of NUMBERED) {
    vectors[`numbered-${count}-${digits}`] = {
      count,
      digits,
      cid: await name(numbered(count, digits).map(([path, value]) => ({ path: `root/${path}`, content: body(value) })))
    }
  }
  return vectors
}

function write (file, value) {
  writeFileSync(new URL(file, import.meta.url), JSON.stringify(value, null, 1) + '\n')
}

write('files.json', await files())
write('small-chunks.json', await smallChunks())
write('directories.json', await directories())
