/**
 * Every error that this package raises on purpose, in one tree, named as in Python:
 *
 *     SamespaceError
 *     ├── ConfigError                an option that cannot be used
 *     ├── ImageError                 a picture that cannot be used
 *     │   ├── DecodeError            not an image, damaged, or not readable by this page
 *     │   └── ImageTooLargeError     more pixels than allowed
 *     ├── BundleError                a bundle that cannot be used or fetched
 *     │   ├── BundleFormatError      manifest missing, malformed, or of an unknown version
 *     │   ├── BundleTamperedError    a file's sha256 or the fingerprint does not match
 *     │   ├── DepartingGraphError    a graph file that this browser computes otherwise
 *     │   └── UnsafePathError        a path that leaves its folder, or a pickle
 *     └── RuntimeUnavailableError    nothing in this browser can run the bundle
 *
 * A message names the culprit and the fix.
 */

/** Base of all errors raised on purpose. */
export class SamespaceError extends Error {
  // Own names, not new.target.name: minifiers rename classes.
  override name = "SamespaceError";
}

/** An option that cannot be used. */
export class ConfigError extends SamespaceError {
  override name = "ConfigError";
}

/** A picture that cannot be used. */
export class ImageError extends SamespaceError {
  override name = "ImageError";
}

/** Not an image, a damaged one, or one whose pixels this page may not read. */
export class DecodeError extends ImageError {
  override name = "DecodeError";
}

/** More pixels than the limit allows. */
export class ImageTooLargeError extends ImageError {
  override name = "ImageTooLargeError";
}

/** A bundle that cannot be used, or could not be fetched. */
export class BundleError extends SamespaceError {
  override name = "BundleError";
}

/** The manifest is missing, malformed, or of an unknown version. */
export class BundleFormatError extends BundleError {
  override name = "BundleFormatError";
}

/** A file or the fingerprint is not what the manifest says. */
export class BundleTamperedError extends BundleError {
  override name = "BundleTamperedError";
}

/** A graph file that this browser computes otherwise than the exporter. */
export class DepartingGraphError extends BundleError {
  override name = "DepartingGraphError";
}

/** A path that leaves its folder, or a file of a kind that can run code. */
export class UnsafePathError extends BundleError {
  override name = "UnsafePathError";
}

/** Nothing in this browser, or on this page, can run the bundle. */
export class RuntimeUnavailableError extends SamespaceError {
  override name = "RuntimeUnavailableError";
}
