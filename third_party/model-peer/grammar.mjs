// Turns a JSON Schema into a llama.cpp grammar (GBNF) whose every sentence is compact JSON with
// sorted keys that fits the schema, so that an answer is canonical as it leaves the model.
//
// Not a full JSON Schema: what cannot be expressed is an error, never ignored, except
// annotations. Optional properties are always written.

const ANNOTATIONS = new Set(["$schema", "$id", "title", "description", "default", "examples", "additionalProperties", "required"]);
const STRING_CHARS_MAX = 2000;

const literal = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;

/** @returns {string} the grammar */
export function grammarOf(schema) {
  const rules = new Map([
    ["char", String.raw`[^"\\\x7F\x00-\x1F] | "\\" ["\\bfnrt]`],
    ["integer", String.raw`"0" | "-"? [1-9] [0-9]{0,14}`],
    ["number", String.raw`integer ("." [0-9]{0,8} [1-9])?`],
  ]);
  let count = 0;
  const define = (body) => {
    const name = `r${count++}`;
    rules.set(name, body);
    return name;
  };
  const visit = (node, at) => {
    if (node === null || typeof node !== "object" || Array.isArray(node)) {
      throw new Error(`${at}: the schema is not an object`);
    }
    const known = (...names) => {
      for (const key of Object.keys(node)) {
        if (!names.includes(key) && !ANNOTATIONS.has(key)) {
          throw new Error(`${at}: \`${key}\` cannot be turned into a grammar`);
        }
      }
    };
    if (node.const !== undefined) return define(literal(JSON.stringify(node.const)));
    if (node.enum) return define(node.enum.map((v) => literal(JSON.stringify(v))).join(" | "));
    const choice = node.anyOf ?? node.oneOf;
    if (choice) return define(choice.map((n, i) => visit(n, `${at}/anyOf/${i}`)).join(" | "));
    switch (node.type) {
      case "object": {
        known("type", "properties");
        const names = Object.keys(node.properties ?? {}).sort();
        const fields = names.map((n) => `${literal(`${JSON.stringify(n)}:`)} ${visit(node.properties[n], `${at}/${n}`)}`);
        return define(`"{" ${fields.join(' "," ')} "}"`);
      }
      case "array": {
        known("type", "items", "minItems", "maxItems");
        const item = visit(node.items ?? {}, `${at}/items`);
        const least = node.minItems ?? 0;
        const most = node.maxItems === undefined ? "" : Math.max(node.maxItems - 1, 0);
        if (node.maxItems === 0) return define('"[]"');
        const filled = `"[" ${item} ("," ${item}){${Math.max(least - 1, 0)},${most}} "]"`;
        return define(least === 0 ? `"[]" | ${filled}` : filled);
      }
      case "string": {
        known("type", "minLength", "maxLength");
        return define(`"\\"" char{${node.minLength ?? 0},${Math.min(node.maxLength ?? STRING_CHARS_MAX, STRING_CHARS_MAX)}} "\\""`);
      }
      case "integer":
      case "number":
        known("type");
        return node.type;
      case "boolean":
        return define('"true" | "false"');
      case "null":
        return define('"null"');
      default:
        throw new Error(`${at}: type \`${node.type}\` cannot be turned into a grammar`);
    }
  };
  const root = visit(schema, "");
  return [`root ::= ${root}`, ...[...rules].map(([name, body]) => `${name} ::= ${body}`)].join("\n");
}
