/**
 * A picture's size from the first bytes of its file, so that one that is too large is refused
 * before the browser decodes it.
 */

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** A file has what is looked for behind segments of its maker's choosing; no camera writes more. */
export const MAX_SEGMENTS = 1000;

/** The size that a JPEG, PNG, WebP, GIF or BMP file declares; undefined for any other file. */
export async function declaredSize(file: Blob): Promise<Size | undefined> {
  const head = await view(file, 0, 32);
  if (head.byteLength >= 2 && head.getUint16(0) === 0xffd8) return jpegSize(file);
  if (head.byteLength < 30) return undefined;
  const magic = head.getUint32(0);
  if (magic === 0x89504e47) return { width: head.getUint32(16), height: head.getUint32(20) };
  if (magic === 0x47494638) return gifSize(head);
  if (magic === 0x52494646 && head.getUint32(8) === 0x57454250) return webpSize(head);
  if (magic >>> 16 === 0x424d) return bmpSize(head);
  return undefined;
}

async function jpegSize(file: Blob): Promise<Size | undefined> {
  for (let at = 2, segment = 0; segment < MAX_SEGMENTS; segment++) {
    const head = await view(file, at, 9);
    if (head.byteLength < 9 || head.getUint8(0) !== 0xff) return undefined;
    const marker = head.getUint8(1);
    if (marker === 0xff) {
      at += 1; // a fill byte
    } else if (isFrame(marker)) {
      return { width: head.getUint16(7), height: head.getUint16(5) };
    } else if (marker === 0xd9 || marker === 0xda) {
      return undefined;
    } else {
      at += marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7) ? 2 : 2 + head.getUint16(2);
    }
  }
  return undefined;
}

function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

function gifSize(head: DataView): Size {
  return { width: head.getUint16(6, true), height: head.getUint16(8, true) };
}

function webpSize(head: DataView): Size | undefined {
  const kind = head.getUint32(12);
  if (kind === 0x56503858) {
    const width = head.getUint16(24, true) | (head.getUint8(26) << 16);
    const height = head.getUint16(27, true) | (head.getUint8(29) << 16);
    return { width: width + 1, height: height + 1 };
  }
  if (kind === 0x5650384c) {
    const bits = head.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  if (kind !== 0x56503820) return undefined;
  return { width: head.getUint16(26, true) & 0x3fff, height: head.getUint16(28, true) & 0x3fff };
}

function bmpSize(head: DataView): Size {
  const core = head.getUint32(14, true) === 12;
  return core
    ? { width: head.getUint16(18, true), height: head.getUint16(20, true) }
    : { width: head.getInt32(18, true), height: Math.abs(head.getInt32(22, true)) };
}

/** The bytes of a file in a range, or as many of them as there are. */
export async function view(file: Blob, from: number, length: number): Promise<DataView> {
  return new DataView(await file.slice(from, from + length).arrayBuffer());
}
