/** Which file of which model made a vector, and in which space the vector claims to lie. */
export class ModelIdentity {
  constructor(
    /** A label for people; it identifies nothing. */
    readonly name: string,
    /** The model: sha256 over its weights, its preprocessing and its output. */
    readonly fingerprint: string,
    /** The graph file within the bundle, such as `onnx-fp32`. */
    readonly variant: string,
    /** The hash of that file. */
    readonly variantSha256: string,
    /** The fingerprint of the cloud model that anchors the embedding space. */
    readonly space: string,
    /** Width of the vectors. */
    readonly dim: number,
  ) {}

  /** What `JSON.stringify` writes: the keys that Python's `ModelIdentity.from_json` reads. */
  toJSON(): Record<string, string | number> {
    const { name, fingerprint, variant, variantSha256, space, dim } = this;
    return { name, fingerprint, variant, variant_sha256: variantSha256, space, dim };
  }
}
