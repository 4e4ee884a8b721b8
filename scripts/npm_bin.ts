#!/usr/bin/env node
// The npm package's command. Through npm's .bin link import.meta.main is not
// true before Node 24, so the guard of mod.ts would do nothing.
import { main } from "../mod.ts";

// Not imported: that would open all its streams, which takes 5 ms.
const { process } = globalThis;

process.exitCode = await main(process.argv.slice(2));
