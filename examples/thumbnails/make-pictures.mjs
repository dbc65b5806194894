// Draws the two pictures of this example: a Mandelbrot set as PNG and a gradient with shapes as JPEG.
import sharp from 'sharp'

const width = 640
const height = 480
const pixels = new Uint8Array(width * height * 3)
for (let y = 0; y < height; y++) {
  for (let x = 0; x < width; x++) {
    const cr = (x / width) * 3.2 - 2.3
    const ci = (y / height) * 2.4 - 1.2
    let [zr, zi, steps] = [0, 0, 0]
    while (zr * zr + zi * zi < 4 && steps < 96) [zr, zi, steps] = [zr * zr - zi * zi + cr, 2 * zr * zi + ci, steps + 1]
    const shade = steps === 96 ? 0 : (steps * 255) / 96
    pixels.set([shade, (shade * shade) / 255, 64 + shade / 2], (y * width + x) * 3)
  }
}
const at = (name) => new URL(`./pictures/${name}`, import.meta.url).pathname
await sharp(pixels, { raw: { width, height, channels: 3 } })
  .png({ compressionLevel: 9, palette: true })
  .toFile(at('mandelbrot.png'))

const drawing = `<svg xmlns="http://www.w3.org/2000/svg" width="800" height="600">
  <defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="#1b3a6b"/><stop offset="1" stop-color="#f4b66a"/></linearGradient></defs>
  <rect width="800" height="600" fill="url(#sky)"/><circle cx="560" cy="330" r="90" fill="#fff3d0"/>
  <path d="M0 600V430l180-150 150 120 130-90 340 240v50z" fill="#20283a"/></svg>`
await sharp(Buffer.from(drawing)).jpeg({ quality: 85 }).toFile(at('mountains.jpg'))
