// A module with i32x4.relaxed_dot_i8x16_i7x16_add_s, whose result depends on the processor.
//
// It multiplies bytes 0 to 15 of its memory `m` by bytes 16 to 31, adds four neighbours, and
// writes the sums (4, i32) to byte 32. 127 * 255 in all places is 129540 where the processor has
// VNNI, and 65534 where it adds two neighbours in 16 bits, which saturates.

const CODE =
  "AGFzbQEAAAABBAFgAAADAgEABQMBAAEHCQIBbQIAAWYAAAorASkAQSBBAP0ABABBEP0ABAD9DAAAAAAAAAAAAAAAAAAA" +
  "AAD9kwL9CwQACw==";

export const RELAXED = [...Buffer.from(CODE, "base64")];

/** In a page: the sum for 127 * 255. */
export async function relaxedSum(code) {
  const { instance } = await WebAssembly.instantiate(new Uint8Array(code));
  const { m, f } = instance.exports;
  new Int8Array(m.buffer).fill(127, 0, 16).fill(-1, 16, 32);
  f();
  return new Int32Array(m.buffer)[8];
}
