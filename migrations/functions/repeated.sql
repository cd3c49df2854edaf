-- Of settles that found nothing in flight: which only repeat one that was carried out, so that a client whose answer
-- was lost hears ok again. That is so while the lease would still live, in the same epoch, if the message is settled
-- and did not fail as this attempt. Returns their positions, from 1.
create or replace function repeated(
    p bigint, g int, epochs int[], lease_ids bigint[], attempts int[], offsets bigint[], discards boolean[])
returns int[]
language plpgsql stable as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    now_ms bigint := extract(epoch from t) * 1000;
    positions int[];
begin
    select array_agg(a.i::int) into positions
    from unnest(epochs, lease_ids, attempts, offsets, discards) with ordinality a (epoch, id, attempt, o, discard, i)
    join cursors c on c.partition_id = p and c.group_id = g and c.epoch = a.epoch and c.next_offset > a.o
    where (a.id >> 20 > now_ms or exists (
               select from leases l
               where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t))
      and not exists (select from leases l where l.partition_id = p and l.group_id = g and l.pending @> a.o)
      and not exists (select from deferred d where d.partition_id = p and d.group_id = g and d."offset" = a.o)
      and not exists (
          select from attempts x
          where x.partition_id = p and x."offset" = a.o and x.group_id = g and x.attempt >= a.attempt
            and not (a.discard and x.outcome = 'discarded' and x.attempt = a.attempt)
            -- not what an earlier replay has left behind
            and x.at > t - interval '1 day' and x.outcome <> 'acked');
    return coalesce(positions, '{}');
end $$;
