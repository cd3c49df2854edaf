-- Keeps what happened to deliveries. Arrays run side by side; details holds what only a push knows, as objects of
-- latencyMs, status, errorClass and excerpt, or is null.
create or replace function record_attempts(
    p bigint, g int, t timestamptz, offsets bigint[], numbers int[], outcomes text[], reasons text[], details jsonb[])
returns void
language plpgsql as $$
begin
    insert into attempts
        (partition_id, "offset", group_id, attempt, at, outcome, error, latency_ms, status, error_class, excerpt)
    select p, x.o, g, x.n, t, x.outcome, x.reason, (x.d ->> 'latencyMs')::int, (x.d ->> 'status')::int,
           x.d ->> 'errorClass', x.d ->> 'excerpt'
    from unnest(offsets, numbers, outcomes, reasons, details) x (o, n, outcome, reason, d)
    where x.o is not null;
end $$;
