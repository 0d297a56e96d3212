// Drives the public suite http-tests/cache-tests (its npm cut or a checkout) and judges what it found.
//
//   node scripts/cache-tests.mjs run SUITE BASE_URL [ID]      one run against a cache; the verdicts as JSON
//   node scripts/cache-tests.mjs report SUITE MODE FILE…      the table over such runs; exit code 1 if it falls short
//   node scripts/cache-tests.mjs list SUITE                   kind and id of every test that faces a proxy
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

// What the npm cut (0.4.5, early 2021) requires and later cuts do not, or require the opposite of, since RFC 9111
// replaced RFC 7234: told, but not judged.
const SUPERSEDED = new Map(Object.entries({
  'age-parse-nonnumeric': 'RFC 9111 §5.1: ignored, not stale',
  'age-parse-negative': 'RFC 9111 §5.1: ignored, not stale',
  'age-parse-float': 'RFC 9111 §5.1: ignored, not stale',
  'age-parse-parameter': 'informative since',
  'age-parse-numeric-parameter': 'informative since',
  'age-parse-prefix-twoline': 'RFC 9111 §5.1: the first member counts',
  'age-parse-dup-0': 'RFC 9111 §5.1: the first member counts',
  'age-parse-dup-0-twoline': 'RFC 9111 §5.1: the first member counts',
  'age-parse-dup-old': 'RFC 9111 §5.1: the first member counts',
  '304-etag-update-response-Content-MD5': 'informative since',
  '304-etag-update-response-ETag': 'informative since',
  // These want of a request that the origin cut off an answer that counts it.
  'stale-close-must-revalidate': 'cannot be passed',
  'stale-close-proxy-revalidate': 'cannot be passed',
  'stale-close-no-cache': 'cannot be passed',
  'stale-close-s-maxage=2': 'cannot be passed',
}))

// How many tests may be lost: of the required ones by mode, and 10 of the optimal ones (today's suite has 105).
const LOST_MAX = { required: { rfc: 0, safe: 2 }, optimal: { rfc: 10, safe: 10 } }

class Suite {
  static async open (root) {
    const suite = new Suite()
    suite.engine = fs.existsSync(path.join(root, 'test-engine')) ? path.join(root, 'test-engine') : root
    suite.isCut = suite.engine === root
    const groups = (await load(root, 'tests/index.mjs')).default
    // browser_only is for private caches; browser_skip and cdn_only are what a proxy has to face.
    suite.groups = groups.map(group => ({ ...group, tests: group.tests.filter(test => test.browser_only !== true) }))
    suite.tests = suite.groups.flatMap(group => group.tests)
    return suite
  }

  of (kind) {
    return this.tests.filter(test => (test.kind ?? 'required') === kind)
  }
}

function load (root, file) {
  return import(pathToFileURL(path.resolve(root, file)))
}

/// The cut brings a fetch of its own; a checkout counts on Node's, and on undici's for interim responses. Both from
/// one undici, or the interceptor of the one is foreign to the other.
async function fetchOf (suite) {
  const require = createRequire(path.resolve(suite.engine, 'package.json'))
  if (suite.isCut) return require('node-fetch')
  try {
    const undici = require('undici')
    undici.setGlobalDispatcher(new undici.Agent())
    globalThis.fetch = undici.fetch
  } catch {
    console.error('warning: no undici beside the suite (npm install there); its tests of interim responses cannot pass')
  }
  return globalThis.fetch
}

async function run (root, base, id) {
  const suite = await Suite.open(root)
  const groups = suite.groups
    .map(group => ({ ...group, tests: group.tests.filter(test => id === undefined || test.id === id) }))
    .filter(group => group.tests.length > 0)
  if (groups.length === 0) throw new Error(`no test ${id}`)
  if (id !== undefined) groups[0].tests[0].dump = true
  const log = console.log
  if (id === undefined) console.log = () => {}
  const runner = await load(suite.engine, 'client/runner.mjs')
  const fetch = await fetchOf(suite)
  // A cut with node-fetch has no limit of its own: a response that never ends must not end the run.
  const limited = (url, init) => fetch(url, { signal: AbortSignal.timeout(20_000), ...init })
  // Later checkouts use the global fetch, and no longer take one.
  if (runner.runTests.length === 3) await runner.runTests(groups, false, base)
  else await runner.runTests(groups, suite.isCut ? limited : fetch, false, base)
  log(JSON.stringify(runner.getResults(), null, 1))
}

/// 'pass', or why not, judged as the suite's own site does: 'depends' rests on a test that did not pass, 'setup' did not
/// get as far as the question, 'fail' answered it wrongly.
function verdict (suite, results, test) {
  const result = results[test.id]
  if (result === undefined) return 'untested'
  const isMet = id => {
    const other = suite.tests.find(test => test.id === id)
    return other === undefined || verdict(suite, results, other) === 'pass'
  }
  if (!(test.depends_on ?? []).every(isMet)) return 'depends'
  if (result === true) return 'pass'
  return result[0] === 'Setup' ? 'setup' : 'fail'
}

async function report (root, mode, files) {
  const suite = await Suite.open(root)
  const runs = files.map(file => JSON.parse(fs.readFileSync(file, 'utf8')))
  const shortfalls = []
  console.log(`${'kind'.padEnd(10)}${'run'.padStart(4)}${'passed'.padStart(8)}${'of'.padStart(6)}`)
  for (const kind of ['required', 'optimal', 'check']) {
    const tests = suite.of(kind)
    const isJudged = test => !(suite.isCut && SUPERSEDED.has(test.id))
    const judged = tests.filter(isJudged)
    runs.forEach((results, nth) => {
      const passed = list => list.filter(test => verdict(suite, results, test) === 'pass').length
      const aside = judged.length < tests.length ? `   ${passed(judged)} of the ${judged.length} not superseded` : ''
      console.log(kind.padEnd(10) + `${nth + 1}`.padStart(4) + `${passed(tests)}`.padStart(8) + `${tests.length}`.padStart(6) + aside)
      const needed = kind in LOST_MAX ? judged.length - LOST_MAX[kind][mode] : 0
      if (passed(judged) < needed) shortfalls.push(`run ${nth + 1}: ${passed(judged)} ${kind}, at least ${needed} are needed`)
    })
  }
  for (const kind of ['required', 'optimal', 'check']) {
    const failing = suite.of(kind).filter(test => runs.some(results => verdict(suite, results, test) !== 'pass'))
    if (failing.length > 0) console.log(`\nnot passed, ${kind}:`)
    for (const test of failing) {
      const { id } = test
      const results = runs.find(results => verdict(suite, results, test) !== 'pass')
      const note = suite.isCut && SUPERSEDED.has(id) ? ` [superseded: ${SUPERSEDED.get(id)}]` : ''
      console.log(`  ${verdict(suite, results, test).padEnd(9)}${id}: ${results[id]?.[1] ?? ''}${note}`)
    }
  }
  const verdicts = test => runs.map(results => verdict(suite, results, test))
  const changed = suite.tests.filter(test => new Set(verdicts(test)).size > 1)
  console.log(`\nverdicts that changed between ${runs.length} runs: ${changed.length}`)
  for (const test of changed) console.log(`  ${test.id}: ${verdicts(test).join(', ')}`)
  if (changed.length > 0) shortfalls.push(`${changed.length} verdicts changed between runs`)
  console.log(shortfalls.length === 0 ? `\nverdict (${mode}): good` : `\nverdict (${mode}): falls short\n  ${shortfalls.join('\n  ')}`)
  process.exitCode = shortfalls.length === 0 ? 0 : 1
}

async function list (root) {
  const suite = await Suite.open(root)
  for (const kind of ['required', 'optimal', 'check']) {
    for (const test of suite.of(kind)) console.log(`${kind}\t${test.id}`)
  }
}

const [command, ...args] = process.argv.slice(2)
if (command === 'run') {
  await run(...args)
  // Sockets kept alive would hold the process for as long as the server does.
  process.exit()
} else if (command === 'report') {
  await report(args[0], args[1], args.slice(2))
} else if (command === 'list') {
  await list(args[0])
} else {
  console.error('error: run, report or list')
  process.exit(2)
}
