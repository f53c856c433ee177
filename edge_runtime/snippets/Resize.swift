// From decoded pixels to the input of a samespace graph, bit for bit as edge_runtime/README.md
// defines it. Copy this file into the app; it needs nothing but Swift 5.

/// uint8 RGB, row by row.
struct Pixels {
    let data: [UInt8]
    let width: Int
    let height: Int
}

/// As it stands under `resize` in manifest.json: `Policy(rawValue: "crop")`.
enum Policy: String {
    case crop, squash, pad
}

/// Upright pixels.
///
/// - Parameters:
///   - bytes: red, green, blue and one byte that is left out, already laid on white; with
///     `bytesPerPixel` 1, grey.
///   - bytesPerRow: often more than `width * bytesPerPixel`.
///   - orientation: EXIF's, 1 to 8.
func upright(
    _ bytes: UnsafePointer<UInt8>, width: Int, height: Int, bytesPerRow: Int,
    bytesPerPixel: Int, orientation: Int = 1
) -> Pixels {
    let turned = (5...8).contains(orientation)
    let mirrored = [2, 3, 7, 8].contains(orientation)
    let upsideDown = [3, 4, 6, 7].contains(orientation)
    let upWidth = turned ? height : width
    let upHeight = turned ? width : height
    let next = bytesPerPixel == 1 ? 0 : 1
    var data = [UInt8](repeating: 0, count: width * height * 3)
    var to = 0
    for y in 0..<upHeight {
        for x in 0..<upWidth {
            var column = turned ? y : x
            var row = turned ? x : y
            if mirrored { column = width - 1 - column }
            if upsideDown { row = height - 1 - row }
            let pixel = row * bytesPerRow + column * bytesPerPixel
            data[to] = bytes[pixel]
            data[to + 1] = bytes[pixel + next]
            data[to + 2] = bytes[pixel + 2 * next]
            to += 3
        }
    }
    return Pixels(data: data, width: upWidth, height: upHeight)
}

/// The input of a graph, from upright pixels.
func resize(_ pixels: Pixels, width: Int, height: Int, policy: Policy) -> Pixels {
    let w = pixels.width
    let h = pixels.height
    let wide = w * height > h * width
    var partWidth = w  // what is taken of the picture
    var partHeight = h
    var innerWidth = width  // what becomes of it
    var innerHeight = height
    switch policy {
    case .crop:
        if wide { partWidth = max(1, h * width / height) }
        else { partHeight = max(1, w * height / width) }
    case .pad:
        if wide { innerHeight = max(1, (2 * h * width + w) / (2 * w)) }
        else { innerWidth = max(1, (2 * w * height + h) / (2 * h)) }
    case .squash:
        break
    }
    let left = (w - partWidth) / 2
    let top = (h - partHeight) / 2
    let part = Lines(start: (top * w + left) * 3, along: 3, across: w * 3, length: partWidth)
    var rows = [UInt8](repeating: 0, count: innerWidth * partHeight * 3)
    let short = Lines(start: 0, along: 3, across: innerWidth * 3, length: innerWidth)
    triangle(pixels.data, part, &rows, short, count: partHeight)

    let right = (width - innerWidth) / 2
    let down = (height - innerHeight) / 2
    let columns = Lines(start: 0, along: innerWidth * 3, across: 3, length: partHeight)
    let inner = Lines(
        start: (down * width + right) * 3, along: width * 3, across: 3, length: innerHeight)
    var data = [UInt8](repeating: 255, count: width * height * 3)
    triangle(rows, columns, &data, inner, count: innerWidth)
    return Pixels(data: data, width: width, height: height)
}

/// Rows or columns: the first byte, the bytes from pixel to pixel and from line to line, pixels.
private struct Lines {
    let start: Int
    let along: Int
    let across: Int
    let length: Int
}

/// Makes `count` lines of `from.length` pixels into lines of `to.length`.
private func triangle(
    _ source: [UInt8], _ from: Lines, _ result: inout [UInt8], _ to: Lines, count: Int
) {
    let scale = Double(from.length) / Double(to.length)
    let support = max(1.0, scale)
    let inverse = 1.0 / support
    for i in 0..<to.length {
        let centre = (Double(i) + 0.5) * scale
        let first = max(0, Int(centre - support + 0.5))
        let last = min(from.length, Int(centre + support + 0.5))
        var weights: [Double] = []
        var total = 0.0
        for j in first..<last {
            let distance = abs(Double(j) - centre + 0.5) * inverse
            let weight = max(0.0, 1.0 - distance)
            weights.append(weight)
            total += weight
        }
        let whole = weights.map { weight in Int(weight / total * 4194304.0 + 0.5) }
        for line in 0..<count {
            let begin = from.start + line * from.across + first * from.along
            let end = to.start + line * to.across + i * to.along
            for channel in 0..<3 {
                var sum = 2_097_152
                var at = begin + channel
                for weight in whole {
                    sum += weight * Int(source[at])
                    at += from.along
                }
                result[end + channel] = UInt8(min(255, sum >> 22))
            }
        }
    }
}
