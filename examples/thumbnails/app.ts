import sharp from 'sharp'
import { defineFunction } from 'praas'

interface Description {
  width: number
  height: number
  format: string
}

/** Scales a PNG, JPEG or WebP picture to fit 128 × 128 pixels. */
export async function thumbnail(picture: Uint8Array): Promise<Uint8Array> {
  return sharp(picture).resize(128, 128, { fit: 'inside', withoutEnlargement: true }).jpeg({ quality: 80 }).toBuffer()
}

/** What a picture is, without decoding all of it. */
export const describe = defineFunction(
  { input: 'raw', output: 'json' },
  async (picture: Uint8Array): Promise<Description> => {
    const { width, height, format } = await sharp(picture).metadata()
    return { width, height, format }
  },
)
