// npx tsx examples/thumbnails/main.ts [FOLDER] [OUTPUT FOLDER]
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, parse } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Cluster } from 'praas'

const [folder = fileURLToPath(new URL('./pictures', import.meta.url)), output = join(tmpdir(), 'praas-thumbnails')] =
  process.argv.slice(2)

await using cluster = await Cluster.local({ app: new URL('./app.ts', import.meta.url) })
const thumbnailer = await cluster.process('thumbnailer', { workers: 2, concurrency: 2 })
const { thumbnail, describe } = thumbnailer.functions<typeof import('./app.js')>()

await mkdir(output, { recursive: true })
const files = (await readdir(folder)).filter((name) => /\.(png|jpe?g|webp)$/i.test(name))
await Promise.all(
  files.map(async (name) => {
    const picture = await readFile(join(folder, name))
    const [{ width, height, format }, small] = await Promise.all([describe(picture), thumbnail(picture)])
    const target = join(output, `${parse(name).name}.jpg`)
    await writeFile(target, small)
    console.log(`${name}: ${format} ${width}×${height}, ${picture.length} bytes → ${target}, ${small.length} bytes`)
  }),
)
