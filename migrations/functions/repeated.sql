-- Of settles that found nothing in flight: which only repeat one that was carried out, so that a client whose answer
-- was lost hears ok again. That is so while the lease would still live, in the same epoch, unless the message was taken
-- from that very lease before it was settled: what its next consumer did of it is not this one's. Discards repeat
-- discards. Returns their positions, from 1.
--
-- What a lease had is settled by it if it was not taken from it, so only exceptions are remembered (past_leases).
create or replace function repeated(
    p bigint, g int, epochs int[], lease_ids bigint[], offsets bigint[], discards boolean[])
returns int[]
language plpgsql stable as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    now_ms bigint := extract(epoch from t) * 1000;
    positions int[];
begin
    select array_agg(a.i::int) into positions
    from unnest(epochs, lease_ids, offsets, discards) with ordinality a (epoch, id, o, discard, i)
    join cursors c on c.partition_id = p and c.group_id = g and c.epoch = a.epoch and c.next_offset > a.o
    left join past_leases x on x.partition_id = p and x.group_id = g and x.id = a.id
    where (case when x.id is null then a.id >> 20 > now_ms else x.until > t end or exists (
               select from leases l
               where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t))
      and case when a.discard then x.discarded @> a.o else x.id is null or not x.lost @> a.o end
      and not exists (select from leases l where l.partition_id = p and l.group_id = g and l.pending @> a.o)
      and not exists (select from deferred d where d.partition_id = p and d.group_id = g and d."offset" = a.o);
    return coalesce(positions, '{}');
end $$;
