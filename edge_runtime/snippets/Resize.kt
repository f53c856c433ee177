// From decoded pixels to the input of a samespace graph, bit for bit as edge_runtime/README.md
// defines it. Copy this file into the app; it needs nothing but Kotlin.

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** uint8 RGB, row by row. */
class Pixels(val data: ByteArray, val width: Int, val height: Int)

/** As it stands under `resize` in manifest.json: `Policy.valueOf("crop")`. */
enum class Policy { crop, squash, pad }

/**
 * Upright pixels, laid on white.
 *
 * @param argb not premultiplied, row by row: what `Bitmap.getPixels` fills.
 * @param orientation EXIF's, 1 to 8.
 */
fun upright(argb: IntArray, width: Int, height: Int, orientation: Int = 1): Pixels {
    val turned = orientation in 5..8
    val mirrored = orientation in intArrayOf(2, 3, 7, 8)
    val upsideDown = orientation in intArrayOf(3, 4, 6, 7)
    val upWidth = if (turned) height else width
    val upHeight = if (turned) width else height
    val data = ByteArray(width * height * 3)
    var to = 0
    for (y in 0 until upHeight) {
        for (x in 0 until upWidth) {
            var column = if (turned) y else x
            var row = if (turned) x else y
            if (mirrored) column = width - 1 - column
            if (upsideDown) row = height - 1 - row
            val pixel = argb[row * width + column]
            data[to++] = onWhite(pixel shr 16, pixel ushr 24)
            data[to++] = onWhite(pixel shr 8, pixel ushr 24)
            data[to++] = onWhite(pixel, pixel ushr 24)
        }
    }
    return Pixels(data, upWidth, upHeight)
}

private fun onWhite(level: Int, alpha: Int): Byte {
    val sum = ((level and 255) * alpha + 255 * (255 - alpha)) * 128 + 16384
    return ((((sum shr 8) + sum) shr 8) shr 7).toByte()
}

/** The input of a graph, from upright pixels. */
fun resize(pixels: Pixels, width: Int, height: Int, policy: Policy): Pixels {
    val w = pixels.width.toLong() // products of sizes leave the range of Int
    val h = pixels.height.toLong()
    val wide = w * height > h * width
    var partWidth = pixels.width // what is taken of the picture
    var partHeight = pixels.height
    var innerWidth = width // what becomes of it
    var innerHeight = height
    when (policy) {
        Policy.crop ->
            if (wide) partWidth = max(1, h * width / height).toInt()
            else partHeight = max(1, w * height / width).toInt()
        Policy.pad ->
            if (wide) innerHeight = max(1, (2 * h * width + w) / (2 * w)).toInt()
            else innerWidth = max(1, (2 * w * height + h) / (2 * h)).toInt()
        Policy.squash -> Unit
    }
    val left = (pixels.width - partWidth) / 2
    val top = (pixels.height - partHeight) / 2
    val part = Lines((top * pixels.width + left) * 3, 3, pixels.width * 3, partWidth)
    val rows = ByteArray(innerWidth * partHeight * 3)
    triangle(pixels.data, part, rows, Lines(0, 3, innerWidth * 3, innerWidth), partHeight)

    val right = (width - innerWidth) / 2
    val down = (height - innerHeight) / 2
    val inner = Lines((down * width + right) * 3, width * 3, 3, innerHeight)
    val data = ByteArray(width * height * 3) { 255.toByte() }
    triangle(rows, Lines(0, innerWidth * 3, 3, partHeight), data, inner, innerWidth)
    return Pixels(data, width, height)
}

/** Rows or columns: the first byte, the bytes from pixel to pixel and from line to line, pixels. */
private class Lines(val start: Int, val along: Int, val across: Int, val length: Int)

/** Makes `count` lines of `from.length` pixels into lines of `to.length`. */
private fun triangle(source: ByteArray, from: Lines, result: ByteArray, to: Lines, count: Int) {
    val scale = from.length.toDouble() / to.length
    val support = max(1.0, scale)
    val inverse = 1.0 / support
    for (i in 0 until to.length) {
        val centre = (i + 0.5) * scale
        val first = max(0, (centre - support + 0.5).toInt())
        val last = min(from.length, (centre + support + 0.5).toInt())
        val weights = DoubleArray(last - first)
        var total = 0.0
        for (j in first until last) {
            val weight = max(0.0, 1.0 - abs(j - centre + 0.5) * inverse)
            weights[j - first] = weight
            total += weight
        }
        val whole = IntArray(weights.size) { (weights[it] / total * 4194304.0 + 0.5).toInt() }
        for (line in 0 until count) {
            val begin = from.start + line * from.across + first * from.along
            val end = to.start + line * to.across + i * to.along
            for (channel in 0..2) {
                var sum = 2097152
                var at = begin + channel
                for (weight in whole) {
                    sum += weight * (source[at].toInt() and 255)
                    at += from.along
                }
                result[end + channel] = min(255, sum shr 22).toByte()
            }
        }
    }
}
