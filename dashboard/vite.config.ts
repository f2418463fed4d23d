import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses, so that the page also works behind a proxy's path.
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // `npm run dev` beside a running `taktline demo`.
  server: { proxy: { "/api": { target: process.env["TAKTLINE_URL"] ?? "http://127.0.0.1:8080", ws: true } } },
});
