#!/usr/bin/env node
// The npm package's command. Through npm's .bin link import.meta.main is not
// true before Node 24, so the guard of mod.ts would do nothing.
import process from "node:process";
import { main } from "../mod.ts";

process.exitCode = await main(process.argv.slice(2));
