// The service as functions: one for each question, typed answers, errors with the service's code.

import type { Entity, EntityType, Found, Graph, Health, Measure, Path } from "./answers.js";

/** What the client needs of `fetch`, so that tests can stand in for it. */
export type Fetch = (url: string) => Promise<Pick<Response, "ok" | "status" | "json">>;

/** The service's answer was an error, or none that is understood. */
export class IntelgraphError extends Error {
  override readonly name = "IntelgraphError";

  constructor(
    message: string,
    /** The status of HTTP. */
    readonly status: number,
    /** The service's own word for it, such as `unknown_entity`. */
    readonly code: string,
  ) {
    super(message);
  }
}

export class IntelgraphClient {
  readonly #address: string;
  readonly #fetch: Fetch;

  /** `address` is where the service listens, such as `http://127.0.0.1:8080`. */
  constructor(address: string, fetch: Fetch = (url) => globalThis.fetch(url)) {
    this.#address = address.replace(/\/+$/, "");
    this.#fetch = fetch;
  }

  health(): Promise<Health> {
    return this.#ask("/health");
  }

  /** Entities with a name that holds every word of `text`. */
  search(text: string, options: { type?: EntityType; limit?: number } = {}): Promise<Found> {
    return this.#ask("/entities", { q: text, ...options });
  }

  entity(id: string): Promise<Entity> {
    return this.#ask(`/entity/${encodeURIComponent(id)}`);
  }

  /** The shortest path between two entities. */
  path(from: string, to: string, by: Measure = "hops"): Promise<Path> {
    return this.#ask("/path", { from, to, by });
  }

  graph(): Promise<Graph> {
    return this.#ask("/graph");
  }

  async #ask<Answer>(path: string, parameters: Record<string, unknown> = {}): Promise<Answer> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) query.set(name, String(value));
    }
    const text = query.toString();
    const response = await this.#fetch(`${this.#address}${path}${text && `?${text}`}`);
    const body: unknown = await response.json().catch(() => undefined);
    if (response.ok && body !== undefined) return body as Answer;
    const { error } = (body ?? {}) as { error?: { code?: string; message?: string } };
    throw new IntelgraphError(
      error?.message ?? `the service answered ${response.status}`,
      response.status,
      error?.code ?? "unknown",
    );
  }
}
