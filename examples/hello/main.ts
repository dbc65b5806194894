// npx tsx examples/hello/main.ts
import { Cluster } from 'praas'

await using cluster = await Cluster.local({ app: new URL('./app.ts', import.meta.url) })
const greeter = await cluster.process('greeter')
const { hello } = greeter.functions<typeof import('./app.js')>()

for (const name of ['Ada', 'Grace', 'Edsger']) {
  console.log(await hello(name))
}
