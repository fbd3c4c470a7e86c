// What the service answers. The shapes are those of the service's own page.

/** How far apart two entities are: by links, or by how well the links are attested. */
export type Measure = "hops" | "strength";

export type EntityType = "account" | "document" | "organisation" | "person";

/** The few fields by which an entity is recognised. */
export interface Summary {
  id: string;
  type: EntityType;
  name: string;
  community: number;
}

export interface Health {
  status: "ok";
  entities: number;
  nodes: number;
}

export interface Found {
  /** How many fit, of which the first are listed. */
  total: number;
  entities: Summary[];
}

export interface Neighbour extends Summary {
  strength: number;
}

export interface Entity extends Summary {
  /** The ids of the rows that speak of it. */
  members: unknown[];
  neighbours: Neighbour[];
}

export interface Path {
  from: Summary;
  to: Summary;
  /** Empty where nothing connects the two. */
  nodes: Summary[];
}

export interface Edge {
  from: string;
  to: string;
  strength: number;
}

export interface Graph {
  nodes: (Summary & { degree: number })[];
  edges: Edge[];
}
