// The client as one module.

export * from "./answers.js";
export * from "./client.js";
export * from "./layout.js";
